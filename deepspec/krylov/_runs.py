"""Lanczos runs from random directions, one after the other, kept on the way: SLQ's products."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepspec.arguments import check_whole
from deepspec.krylov._arguments import check_operator
from deepspec.krylov._lanczos import (
    Recurrence,
    Reorthogonalize,
    check_reorthogonalize,
    open_checkpoint,
)
from deepspec.krylov._probes import dimension, unit_probe
from deepspec.krylov._progress import progress
from deepspec.krylov.quadrature import Quadrature
from deepspec.krylov.tridiagonal import Tridiagonal
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.checkpoint import Checkpoint, as_tensor, finite, require


def probed(
    A: SymmetricOperator,
    steps: int,
    probes: int,
    reorthogonalize: Reorthogonalize,
    seed: Seed,
    checkpoint: str | Path | None,
    checkpoint_every: float,
) -> Quadrature:
    """What every density is drawn from: checked arguments, the checkpoint, and the runs.

    It is the run that is kept, not how it is drawn, so that one density goes on from another's.
    """
    check_operator(A)
    check_whole(steps, 1, "steps")
    check_whole(probes, 1, "probes")
    full = check_reorthogonalize(reorthogonalize)
    chosen = whole_seed(seed)
    store = None
    if checkpoint is not None:
        settings = {"steps": steps, "probes": probes, "seed": chosen, "full": full}
        store = open_checkpoint(checkpoint, checkpoint_every, A, "density", settings)
    return run_probes(A, steps, probes, chosen, store, full)


def run_probes(
    A: SymmetricOperator,
    steps: int,
    probes: int,
    seed: int,
    store: Checkpoint | None,
    full: bool = False,
) -> Quadrature:
    """A run of ``steps`` (SlowLanczos where ``full``) from each of so many random directions."""
    done: list[Tridiagonal] = []
    held: Recurrence | None = None
    saved = None if store is None else store.load()
    if store is not None and saved is not None:
        entries, arrays = saved
        with store.restoring():
            ends = entries["ends"]
            require(len(ends) <= probes, "the number of runs")
            done = [_tridiagonal(arrays, i, end, steps) for i, end in enumerate(ends)]
            if entries["run"]:
                held = Recurrence(A, unit_probe(A, seed, len(done)), steps, full, seed)
                held.restore(entries["run"], arrays)
    A.prepare(steps * probes)
    taken = sum(len(T.diagonal) for T in done) + (0 if held is None else len(held.alphas))
    with progress("Lanczos", steps * probes, taken) as advance:
        for index in range(len(done), probes):
            run = held or Recurrence(A, unit_probe(A, seed, index), steps, full, seed)
            held = None
            while not run.finished:
                run.step()
                advance()
                if store is not None:
                    store.offer(partial(_state, done, run))
            done.append(run.tridiagonal(with_basis=False))
            del run
    if store is not None:
        store.save(*_state(done, None))
    return _collected(A, steps, done, full)


def _state(
    done: list[Tridiagonal], run: Recurrence | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    entries: dict[str, Any] = {
        "ends": [[T.next_off_diagonal.hex(), T.exhausted] for T in done],
        "run": None,
    }
    arrays: dict[str, Tensor] = {}
    if run is not None:
        entries["run"], arrays = run.state()
    for index, T in enumerate(done):
        arrays[f"diagonal {index}"], arrays[f"beside {index}"] = T.diagonal, T.off_diagonal
    return entries, arrays


def _tridiagonal(
    arrays: Mapping[str, Tensor], index: int, end: tuple[str, bool], steps: int
) -> Tridiagonal:
    diagonal, beside = arrays[f"diagonal {index}"], arrays[f"beside {index}"]
    count, last = len(diagonal), float.fromhex(end[0])
    require(1 <= count <= steps and math.isfinite(last), "a run")
    finite(diagonal, "the diagonal of a run", (count,), as_tensor([]))
    finite(beside, "what is beside the diagonal of a run", (count - 1,), as_tensor([]))
    return Tridiagonal(
        diagonal=diagonal,
        off_diagonal=beside,
        next_off_diagonal=last,
        exhausted=end[1] is True,
    )


def _collected(A: SymmetricOperator, steps: int, runs: list[Tridiagonal], full: bool) -> Quadrature:
    longest = max(len(T.diagonal) for T in runs)

    def filled(rows: list[Tensor], by: str) -> Tensor:
        ends = [row[-1] if by == "last" else torch.zeros((), dtype=row.dtype) for row in rows]
        spare = [longest - len(row) for row in rows]
        return torch.stack(
            [torch.cat([row, end.expand(n)]) for row, end, n in zip(rows, ends, spare, strict=True)]
        )

    early = runs[0].truncated(32)
    values = filled([T.ritz_values for T in runs], "last")
    return Quadrature(
        ritz_values=values,
        ritz_weights=filled([T.ritz_weights / T.ritz_weights.sum() for T in runs], "zero"),
        residual_bounds=filled([T.residual_bounds for T in runs], "zero"),
        lengths=torch.tensor([len(T.diagonal) for T in runs]),
        steps=steps,
        dimension=dimension(A),
        low=min(float(early.ritz_values[0] - early.residual_bounds[0]), float(values.min())),
        high=max(float(early.ritz_values[-1] + early.residual_bounds[-1]), float(values.max())),
        epsilon=A.epsilon,
        matvecs=sum(T.matvecs for T in runs),
        reorthogonalized=full,
    )
