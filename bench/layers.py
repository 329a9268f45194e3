"""Layers: KFAC beside curvlinops', and everything about the layers of a wide net.

Run by ``make bench``; alone: ``python -m bench.layers [--json FILE]``.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bench.engine import nets
from bench.timing import paired
from deepspec import Layers, Problem, top_eigenpairs
from deepspec.layerwise import Layer
from deepspec.layerwise.sides import weighted_errors, with_ones
from deepspec.operators import BlockDiagonal, MatrixOperator
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp

ROUNDS = 3
T = TypeVar("T")
TOP = 10
WIDTH, DEPTH, PER_CLASS = 2048, 8, 100
MINUTES, GIBIBYTES = 10, 4


def kfac_of(problem: Problem) -> BlockDiagonal:
    """KFAC of every layer that has one, each with its bias; positions expanded."""
    layers = Layers(problem, shared="expand")
    return BlockDiagonal(
        [layer.kfac(layer.bias_in_theta) for layer in layers if not layer.normalizes]
    )


def beside_curvlinops(model: nn.Module, X: Tensor, y: Tensor) -> dict[str, dict[str, float]] | None:
    """Seconds of construction and of the top eigenvalues, paired; ``None`` where there is no peer.

    Theirs is the same matrix: exact Fisher ("type-2"), expand, weight and bias together. It offers
    no spectrum; its users take SciPy's ``eigsh``.
    """
    try:
        from curvlinops import FisherType, KFACLinearOperator, KFACType
    except ImportError:
        return None
    from scipy.sparse.linalg import eigsh

    problem = Problem(model, (X, y), batch_size=len(X))
    affine = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    parameters = [p for module in affine for p in module.parameters()]

    def theirs() -> KFACLinearOperator:
        made = KFACLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            parameters,
            [(X, y)],
            check_deterministic=False,
            fisher_type=FisherType.TYPE2,
            kfac_approx=KFACType.EXPAND,
            separate_weight_and_bias=False,
        )
        made.compute_kronecker_factors()
        return made

    def their_top() -> Tensor:
        return torch.as_tensor(eigsh(theirs().to_scipy(), TOP, which="LA")[0].copy()).flip(0)

    mine, other = kfac_of(problem).eigenvalues(TOP).cpu(), their_top()
    error = float((mine - other).abs().max() / mine[0])
    if error > 1e-3:
        raise SystemExit(f"the two KFACs' top eigenvalues differ by {error:.1e} of the largest")
    making = {"deepspec": lambda: kfac_of(problem), "curvlinops": theirs}
    construction = paired(making, "deepspec", ROUNDS)
    whole = {"deepspec": lambda: kfac_of(problem).eigenvalues(TOP), "curvlinops": their_top}
    spectrum = paired(whole, "deepspec", ROUNDS)
    return {
        what: {
            "deepspec, seconds": min(timings["deepspec"].seconds),
            "curvlinops, seconds": min(timings["curvlinops"].seconds),
            "ratio": timings["curvlinops"].ratio,
        }
        for what, timings in (("construction", construction), ("with top eigenvalues", spectrum))
    }


class Stages:
    """Seconds by stage, of the clock and of processors, and the peak memory so far."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processors: dict[str, float] = {}
        self.peak: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], T]) -> T:
        begin, busy = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
        self.processors[name] = self.processors.get(name, 0.0) + time.process_time() - busy
        self.peak[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return result


def wide() -> dict[str, dict[str, float]]:
    """All layers of an MLP of eight hidden layers of 2048 on a thousand digits, float32, untrained.

    Features and errors with all their eigenvalues; the Gram matrix of the gradients with the
    C + C² largest eigenvalues of G^l; all eigenvalues of KFAC, the C + C² largest of CFAC.
    """
    data = digits(PER_CLASS).train
    model = mlp(64, (WIDTH,) * DEPTH)
    stages = Stages()
    problem = stages("problem", lambda: Problem(model, data))
    layers = stages("layers", lambda: Layers(problem))
    for name in [layer.name for layer in layers if not layer.normalizes]:
        everything(layers[name], problem.num_classes, stages)
    return {
        name: {
            "seconds": seconds,
            "processor seconds": stages.processors[name],
            "peak GiB": stages.peak[name],
        }
        for name, seconds in stages.seconds.items()
    }


def everything(layer: Layer, C: int, stages: Stages) -> None:
    """One layer, stage by stage; nothing of it is kept."""
    stages("records: inputs and errors", lambda: sum(1 for _ in layer.batches()))
    stages("spectrum of H", lambda: layer.features.eigenvalues())
    stages("spectrum of Δ", lambda: layer.errors.eigenvalues())
    kfac = stages("KFAC", lambda: layer.kfac(True))
    stages("all eigenvalues of KFAC", lambda: kfac.eigenvalues())
    cfac = stages("CFAC", lambda: layer.cfac(True))
    stages("top C + C² eigenvalues of CFAC", lambda: cfac.eigenvalues(C + C * C))
    gram = stages("Gram of the gradients", lambda: gradient_gram(layer))
    stages("top C + C² eigenvalues of G^l", lambda: top_eigenpairs(gram, C + C * C, seed=0))


def gradient_gram(layer: Layer) -> MatrixOperator:
    """S^l (nC × nC) in float32 from inputs and errors, with no pass through the net."""
    batches = list(layer.batches())
    inputs = torch.cat([with_ones(batch.inputs[:, 0], layer.bias_in_theta) for batch in batches])
    errors = torch.cat([weighted_errors(batch)[:, :, 0] for batch in batches])
    gram = errors.flatten(0, 1) @ errors.flatten(0, 1).T
    n, C, _ = errors.shape
    gram.view(n, C, n, C).mul_((inputs @ inputs.T)[:, None, :, None])
    return MatrixOperator(gram)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    console = Console()
    results: dict[str, object] = {}
    for name, (model, X, y) in nets().items():
        found = beside_curvlinops(model, X, y)
        if found is None:
            console.print("curvlinops is not installed: no comparison")
            break
        results[f"KFAC, {name}"] = found
        table = Table("KFAC", "deepspec, s", "curvlinops, s", "theirs / ours", title=name)
        for what, row in found.items():
            cells = (row["deepspec, seconds"], row["curvlinops, seconds"], row["ratio"])
            table.add_row(what, *(f"{value:.2f}" for value in cells))
        console.print(table)
    stages = wide()
    results["wide"] = stages
    parameters = sum(p.numel() for p in mlp(64, (WIDTH,) * DEPTH).parameters())
    title = f"all layers of an MLP 64-{DEPTH}×{WIDTH}-10, {parameters / 1e6:.0f} million, n = 1,000"
    table = Table("stage", "seconds", "of processors", "peak so far, GiB", title=title)
    for what, row in stages.items():
        table.add_row(what, *(f"{value:.2f}" for value in row.values()))
    seconds = sum(row["seconds"] for row in stages.values())
    busy = sum(row["processor seconds"] for row in stages.values())
    peak = max(row["peak GiB"] for row in stages.values())
    table.add_row("all", f"{seconds:.0f}", f"{busy:.0f}", f"{peak:.2f}")
    table.caption = f"target: under {MINUTES} minutes and {GIBIBYTES} GiB on two cores"
    console.print(table)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
