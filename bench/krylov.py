"""Products and seconds to eigenpairs and to a density, beside the peers, on the same operators.

Run by ``make bench``; alone: ``python -m bench.krylov --json FILE``. Every contender multiplies
with deepspec's operator, so that only the estimators are compared; ratios are to deepspec's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from bench.timing import once
from deepspec import ClassStructure, GaussNewton, Hessian, Problem
from deepspec.krylov import spectral_density, top_eigenpairs
from deepspec.krylov._lanczos import Recurrence
from deepspec.krylov.baselines import subspace_iteration
from deepspec.operators.base import SymmetricOperator
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train

COUNT, TOLERANCE, STEPS = 10, 1e-6, 128
LIMIT = 2000  # matvecs, after which a contender is out


class Spent(RuntimeError):
    """A contender took more matvecs than it may."""


class Counted(SymmetricOperator):
    """An operator that counts its products."""

    def __init__(self, operator: SymmetricOperator) -> None:
        self.operator, self.matvecs = operator, 0

    @property
    def size(self) -> int:
        return self.operator.size

    @property
    def dtype(self) -> torch.dtype:
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        return self.operator.device

    def prepare(self, matvecs: int) -> None:
        self.operator.prepare(matvecs)

    def _product(self, columns: Tensor) -> Tensor:
        if self.matvecs >= LIMIT:
            raise Spent
        self.matvecs += columns.shape[1]
        return self.operator @ columns


Pairs = tuple[Tensor, Tensor]


def pyhessian_density(A: SymmetricOperator) -> object:
    """Its Lanczos ends in torch.eig, which torch no longer has; it gets that function back here."""

    def eig(matrix: Tensor, eigenvectors: bool) -> Pairs:
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], dim=1), vectors

    removed = torch.eig
    torch.eig = eig
    try:
        return pyhessian_of(A).density(iter=STEPS, n_v=1)
    finally:
        torch.eig = removed


def pyhessian_of(A: SymmetricOperator) -> Any:
    """PyHessian's estimators with A's products in place of its own."""
    from pyhessian import hessian

    class Borrowed(hessian):
        def __init__(self) -> None:
            self.model = nn.Identity()
            self.params = [torch.zeros(A.size, dtype=A.dtype, device=A.device)]
            self.device, self.full_dataset = str(A.device), True

        def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
            image = A @ v[0].to(A.dtype)
            return float(image @ v[0].to(A.dtype)), [image]

    return Borrowed()


def pair_contenders(A: Counted) -> dict[str, Callable[[], Pairs]]:
    """Ways to the top pairs; PyHessian stops by the change of a value, so its residual differs."""

    def arpack() -> Pairs:
        start = np.random.default_rng(0).standard_normal(A.size)
        values, vectors = eigsh(A.to_scipy(), COUNT, which="LA", tol=TOLERANCE, v0=start)
        return torch.from_numpy(values), torch.from_numpy(vectors)

    def ours() -> Pairs:
        pairs = top_eigenpairs(A, COUNT, tol=TOLERANCE)
        return pairs.values, pairs.vectors

    def papers() -> Pairs:
        pairs = subspace_iteration(A, COUNT, 128)
        return pairs.values, pairs.vectors

    def pyhessian() -> Pairs:
        torch.manual_seed(0)
        values, vectors = pyhessian_of(A).eigenvalues(maxIter=100, tol=TOLERANCE, top_n=COUNT)
        return torch.tensor(values, dtype=A.dtype), torch.stack([v[0] for v in vectors], dim=1)

    found = {"deepspec": ours, "SciPy eigsh": arpack, "the papers' subspace iteration": papers}
    return {**found, **({"PyHessian (100 iterations each)": pyhessian} if has("pyhessian") else {})}


def density_contenders(A: Counted) -> dict[str, Callable[[], object]]:
    """Ways to a density of 128 steps and one probe."""
    found: dict[str, Callable[[], object]] = {"deepspec": lambda: spectral_density(A, STEPS).band()}
    if has("curvlinops"):
        from curvlinops.papyan2020traces.spectrum import lanczos_approximate_spectrum

        def given() -> object:
            seen = spectral_density(A, 32).quadrature
            return lanczos_approximate_spectrum(A, STEPS, boundaries=(seen.low, seen.high))

        # By default it asks eigsh for both ends to 1 %; for an end that is 0 that may never end.
        found["curvlinops"] = lambda: lanczos_approximate_spectrum(A, STEPS)
        found["curvlinops, range from 32 steps"] = given
    if has("pyhessian"):
        found["PyHessian"] = lambda: pyhessian_density(A)
    return found


def has(module: str) -> bool:
    """Whether a peer is installed."""
    try:
        __import__(module)
    except ImportError:
        return False
    return True


def problem() -> Problem:
    """A net of 9,000 parameters trained on the digits, in float64."""
    split = digits(per_class=50)
    model = mlp(64, (64, 64))
    train(model, *split.train, epochs=60)
    return Problem(model, split.train, num_classes=10, dtype=torch.float64)


def pairs_table(A: Counted) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    for name, work in pair_contenders(A).items():
        A.matvecs = 0
        start = time.perf_counter()
        values, vectors = work()
        seconds, matvecs = time.perf_counter() - start, A.matvecs
        residual = (A @ vectors - vectors * values).norm(dim=0) / values.abs()
        rows[name] = {
            "matvecs": matvecs,
            "seconds": seconds,
            "worst relative residual": float(residual.max()),
        }
    return rows


def density_table(A: Counted) -> dict[str, dict[str, float]]:
    rows = {}
    for name, work in density_contenders(A).items():
        A.matvecs = 0
        try:
            seconds = once(work)
        except Spent:
            seconds = math.inf
        rows[name] = {"matvecs": A.matvecs, "seconds": seconds}
    return rows


def overhead() -> dict[str, float]:
    """What a Lanczos step costs beyond its product, at p = 1.2 million in float32."""
    model = mlp(784, (512,) * 4).eval()
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1024, 784, generator=generator)
    A = GaussNewton(Problem(model, (inputs, torch.arange(1024) % 10), num_classes=10))
    start = torch.randn(A.size, generator=generator)
    run = Recurrence(A, start / start.norm(), 100, False, 0)
    for _ in range(4):
        run.step()
    steps, products = [], []
    for _ in range(8):  # in turn, so that drift hits both alike
        steps.append(once(run.step))
        vector = run.current
        products.append(once(lambda vector=vector: A @ vector))
    step, product = float(np.median(steps)), float(np.median(products))
    return {
        "p": A.size,
        "step (s)": step,
        "product (s)": product,
        "overhead": step / product - 1,
        "arithmetic alone": arithmetic(A) / product,
    }


class Free(Counted):
    """An operator of one size whose products cost nothing: it hands out what it was given."""

    image: Tensor

    def _product(self, columns: Tensor) -> Tensor:
        return self.image


def arithmetic(A: SymmetricOperator) -> float:
    """Seconds of a step whose product is free."""
    generator = torch.Generator().manual_seed(1)
    free = Free(A)
    start = torch.randn(A.size, generator=generator)
    run = Recurrence(free, start / start.norm(), 100, False, 0)
    times = []
    for _ in range(20):
        free.image = torch.randn(A.size, 1, generator=generator)
        times.append(once(run.step))
    return float(np.median(times[4:]))


def show(console: Console, title: str, rows: dict[str, dict[str, float]]) -> None:
    table = Table(title=title)
    columns = list(next(iter(rows.values())))
    for head in ["", *columns, "matvecs, ratio", "seconds, ratio"]:
        table.add_column(head, justify="left" if not head else "right")
    ours = rows["deepspec"]
    for name, row in rows.items():
        ratios = [f"{row[k] / ours[k]:.2f}" for k in ("matvecs", "seconds")]
        table.add_row(name, *(f"{row[c]:.3g}" for c in columns), *ratios)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    console = Console()
    data = problem()
    results: dict[str, Any] = {}
    operators: dict[str, SymmetricOperator] = {
        "G": GaussNewton(data),
        "Hess": Hessian(data),
        "G, class part": ClassStructure(data).between_class,
    }
    for name, operator in operators.items():
        operator.prepare(1000)
        operator @ torch.zeros(operator.size, dtype=operator.dtype)  # linearised before timing
        counted = Counted(operator)
        if name != "G, class part":
            results[f"pairs of {name}"] = pairs_table(counted)
            show(
                console,
                f"top {COUNT} pairs of {name}, p = {operator.size}, tolerance {TOLERANCE:g}",
                results[f"pairs of {name}"],
            )
        results[f"density of {name}"] = density_table(counted)
        show(console, f"{STEPS}-step density of {name}", results[f"density of {name}"])
    results["overhead of a Lanczos step"] = overhead()
    for name, value in results["overhead of a Lanczos step"].items():
        console.print(f"Lanczos step, {name}: {value:.4g}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
