"""What the probes saw: for each a Gauss quadrature of the spectrum, with its error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepspec.krylov._lanczos import Recurrence
from deepspec.krylov._probes import dimension, unit_probe
from deepspec.krylov._progress import progress
from deepspec.krylov.tridiagonal import Tridiagonal
from deepspec.operators.base import SymmetricOperator
from deepspec.storage.checkpoint import Checkpoint, as_tensor, finite, require


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Ritz values, weights and residual bounds of n probes, uniform on the unit sphere.

    Attributes
    ----------
    ritz_values, ritz_weights, residual_bounds
        One row per probe, Ritz values ascending. Weights of a row sum to 1; a run that ended
        early, in an invariant subspace, is filled up with weight 0.
    lengths
        How many Ritz values of each row are the run's own.
    steps
        How many were asked for.
    dimension
        How many eigenvalues there are.
    low, high
        The range of the spectrum by Normalization ([002], Algorithm 4, without its margin):
        the extreme Ritz values of 32 steps, widened by their residual bounds and by whatever later
        Ritz values lie beyond.
    epsilon
        The machine precision of the products.
    matvecs
        What it cost.
    reorthogonalized
        Whether the runs were SlowLanczos: then there are no ghosts.
    """

    ritz_values: Float[Tensor, "n m"]
    ritz_weights: Float[Tensor, "n m"]
    residual_bounds: Float[Tensor, "n m"]
    lengths: Int[Tensor, " n"]
    steps: int
    dimension: int
    low: float
    high: float
    epsilon: float
    matvecs: int
    reorthogonalized: bool = False

    @cached_property
    def intervals(self) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
        """Where each Ritz value's mass is: θ ± its residual bound, cut half-way to the next."""
        middle = (self.ritz_values[:, 1:] + self.ritz_values[:, :-1]) / 2
        endless = torch.full_like(self.ritz_values[:, :1], torch.inf)
        left = torch.maximum(
            self.ritz_values - self.residual_bounds, torch.cat([-endless, middle], dim=1)
        )
        right = torch.minimum(
            self.ritz_values + self.residual_bounds, torch.cat([middle, endless], dim=1)
        )
        return left, right

    @property
    def converged(self) -> Bool[Tensor, "n m"]:
        """Ritz values that are eigenvalues to a millionth of the range."""
        return self.residual_bounds <= 1e-6 * max(self.high - self.low, self._smallest)

    @property
    def _smallest(self) -> float:
        return self.epsilon * max(abs(self.low), abs(self.high))

    @cached_property
    def ghosts(self) -> Bool[Tensor, "n m"]:
        """Copies that an exact run could not have ([002], Appendix C.5).

        One start vector sees each eigenvalue once, however often it is repeated in A, and its
        whole weight with it. So beside a converged Ritz value there is a ghost where another is
        as close as rounding (10 √m ε ‖A‖) and no heavier, or is within its own residual bound
        and lighter by √ε: a copy in the making. Their weights belong to the one that is left.
        """
        flagged = torch.zeros_like(self.ritz_values, dtype=torch.bool)
        if self.reorthogonalized:
            return flagged
        count = self.ritz_values.shape[1]
        close = 10 * count**0.5 * max(self._smallest, 1e-300)
        later = torch.ones(count, count, dtype=torch.bool).tril(-1)
        for row in range(self.ritz_values.shape[0]):
            values, weights = self.ritz_values[row], self.ritz_weights[row]
            bounds = self.residual_bounds[row]
            apart = (values[:, None] - values).abs()
            lighter = (weights[:, None] < weights) | ((weights[:, None] == weights) & later)
            copy = (apart <= close) & lighter
            faint = weights[:, None] <= self.epsilon**0.5 * weights
            copy |= (apart <= bounds[:, None] + close) & faint
            own = torch.arange(count) < self.lengths[row]
            flagged[row] = (copy & (bounds <= close) & own).any(dim=1) & own
        return flagged

    @cached_property
    def eigenvalues(self) -> Float[Tensor, " p"] | None:
        """Every eigenvalue of A, ascending, where one run found as many as there are; else None.

        A run that shows as many distinct converged Ritz values, ghosts aside, as A has
        dimensions has seen the whole spectrum: each has the mass 1/p, whatever its weight in the
        start vector. A reorthogonalised run of as many steps always does, repeated ones too.
        """
        sharp = 10 * self.ritz_values.shape[1] ** 0.5 * self._smallest
        for row in range(self.ritz_values.shape[0]):
            own = ~self.ghosts[row] & (torch.arange(self.ritz_values.shape[1]) < self.lengths[row])
            if int(own.sum()) == self.dimension and bool(
                (self.residual_bounds[row][own] <= sharp).all()
            ):
                return self.ritz_values[row][own]
        return None

    @property
    def marks(self) -> tuple[Float[Tensor, "n m"], ...]:
        """Places, masses, left and right ends: what a density is drawn from.

        The masses are the weights that the probes saw, unless :attr:`eigenvalues` is known.
        """
        if self.eigenvalues is None:
            return self.ritz_values, self.ritz_weights, *self.intervals
        exact = self.eigenvalues[None]
        return exact, torch.full_like(exact, 1 / self.dimension), exact, exact

    def cumulative(self, points: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The share of eigenvalues at or below each point.

        The mass of a Ritz value is spread evenly over its interval (:attr:`intervals`): a step
        at a converged one, a slope between others. Exact where :attr:`eigenvalues` is known.
        """
        if self.eigenvalues is not None:
            below = torch.searchsorted(self.eigenvalues, points.contiguous(), right=True)
            return below.to(points.dtype) / self.dimension
        left, right = self.intervals
        total = torch.zeros_like(points)
        for row in range(left.shape[0]):
            width = right[row] - left[row]
            share = (points[:, None] - left[row]) / width.clamp_min(1e-300)
            share = torch.where(width > 0, share.clamp(0, 1), (share >= 0).to(share))
            total += share @ self.ritz_weights[row]
        return (total / left.shape[0]).clamp(0, 1)

    def brackets(
        self, points: Float[Tensor, " k"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Between what the probes' own mass at or below each point must lie.

        The inequalities of Chebyshev, Markov and Stieltjes (Szegő, Orthogonal Polynomials,
        Theorem 3.41.1): up to a node, at least the weights before it and at most with its own.
        What a converged node weighs is in no doubt. Where :attr:`eigenvalues` is known, both are
        :meth:`cumulative`.
        """
        if self.eigenvalues is not None:
            return self.cumulative(points), self.cumulative(points)
        rows, columns = self.ritz_values.shape
        lower, upper = torch.zeros_like(points), torch.zeros_like(points)
        for row in range(rows):
            weights = self.ritz_weights[row]
            summed = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
            doubtful = torch.where(self.converged[row], torch.zeros_like(weights), weights)
            doubtful = torch.cat([doubtful.new_zeros(1), doubtful, doubtful.new_zeros(1)])
            before = torch.searchsorted(self.ritz_values[row].contiguous(), points, right=True)
            lower += summed[before] - doubtful[before]
            upper += summed[before] + doubtful[(before + 1).clamp_max(columns + 1)]
        return (lower / rows).clamp(0, 1), (upper / rows).clamp(0, 1)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """As a manifest's entries and arrays."""
        scalars = ("steps", "dimension", "low", "high", "epsilon", "matvecs", "reorthogonalized")
        arrays = ("ritz_values", "ritz_weights", "residual_bounds", "lengths")
        return {n: getattr(self, n) for n in scalars}, {n: getattr(self, n) for n in arrays}

    @classmethod
    def from_state(cls, entries: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> Quadrature:
        """The inverse of :meth:`to_state`."""
        return cls(
            arrays["ritz_values"],
            arrays["ritz_weights"],
            arrays["residual_bounds"],
            arrays["lengths"],
            entries["steps"],
            entries["dimension"],
            entries["low"],
            entries["high"],
            entries["epsilon"],
            entries["matvecs"],
            entries["reorthogonalized"],
        )


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
    return Tridiagonal(diagonal, beside, last, end[1] is True, None)


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
        values,
        filled([T.ritz_weights / T.ritz_weights.sum() for T in runs], "zero"),
        filled([T.residual_bounds for T in runs], "zero"),
        torch.tensor([len(T.diagonal) for T in runs]),
        steps,
        dimension(A),
        min(float(early.ritz_values[0] - early.residual_bounds[0]), float(values.min())),
        max(float(early.ritz_values[-1] + early.residual_bounds[-1]), float(values.max())),
        torch.finfo(A.dtype).eps,
        sum(len(T.diagonal) for T in runs),
        full,
    )
