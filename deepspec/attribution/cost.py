"""What an attribution will take, said before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from deepspec.attribution.decomposition import MOST_CELLS
from deepspec.attribution.measurement import (
    EIGENPROBLEMS,
    MOST_PLACES,
    SECONDS_PER_CUBE,
    Settings,
    forms_gram,
)
from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.gram import gram_bytes
from deepspec.memory import free_memory
from deepspec.problem import Problem

# Products in the dimension p, in gradients, when pairs converge as they usually do.
OF_HESSIAN, MATVECS_A_PAIR, GRADIENTS_A_MATVEC = 40, 3, 2.5
VECTORS = 30


@dataclass(frozen=True, kw_only=True)
class Cost:
    """An estimate, good to a factor of two or three.

    Attributes
    ----------
    seconds
        For each stage.
    memory
        Bytes at the peak, beside the problem itself.
    """

    seconds: dict[str, float]
    memory: int

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        minutes = f"{total / 60:.0f} minutes" if total >= 90 else f"{total:.0f} s"
        return f"about {minutes}, {self.memory / 1e9:.2g} GB"


def estimate(array: ClassArray, problem: Problem | None, settings: Settings) -> Cost:
    """Time by one gradient and the size of the eigenvalue problems; memory by counting."""
    exact = forms_gram(array, settings)
    small = min(array.rows.size, array.rows.width)
    gradient = 0.0
    if problem is not None:
        begin = time.perf_counter()
        problem.gradient()
        gradient = time.perf_counter() - begin
    cubes = EIGENPROBLEMS * SECONDS_PER_CUBE * small**3 if exact else 0.0
    products = 0 if exact else 60 * (array.num_classes + settings.mini_bulk)
    seconds = {
        "Gram matrix of G": 20 * gradient if exact else 0.0,
        "causes of G": cubes + products * gradient,
    }
    if problem is not None:
        pairs = MATVECS_A_PAIR * min(array.num_classes, MOST_PLACES)
        of_hessian = OF_HESSIAN + pairs + 2 * settings.steps * settings.probes
        seconds["Hess and E"] = GRADIENTS_A_MATVEC * of_hessian * gradient
    memory = max(_of_rows(array, exact=exact), 0 if problem is None else _of_hessian(array))
    return Cost(seconds=seconds, memory=memory)


def _of_rows(array: ClassArray, *, exact: bool) -> int:
    """S and what its spectra take, or the columns that stand in for it; means in either case."""
    cells, rows = array.cells, array.rows
    classes, columns = cells.weights.shape
    whole = len(cells.places)
    means = whole if whole <= MOST_CELLS else 2 * classes
    # Their directions, S times these and a copy on the way; and, of all cells, their coordinates.
    found = 8 * (3 * rows.size * means + classes * columns * (means if whole == means else 0))
    if exact:
        return found + gram_bytes(rows)
    size = torch.finfo(rows.dtype).bits // 8
    return found + size * rows.size * (5 * classes + VECTORS)


def _of_hessian(array: ClassArray) -> int:
    """A search for C eigenpairs, those of G and of Hess, and some more vectors of length p."""
    size = torch.finfo(array.rows.dtype).bits // 8
    return size * array.rows.width * (4 * min(array.num_classes, MOST_PLACES) + VECTORS)


def require_memory(array: ClassArray, cost: Cost) -> None:
    """Refuse at the start what would run out of memory in the middle.

    Raises
    ------
    MemoryError
        If the estimate is above what is free; says what would fit.
    """
    free = free_memory(array.rows.device)
    if cost.memory <= free:
        return
    samples, classes = len(array.cells.labels), array.num_classes
    raise MemoryError(
        f"expected about {cost.memory / 1e9:.2g} GB for the attribution of {samples:,} samples of "
        f"{classes:,} classes and {array.rows.width:,} parameters, {free / 1e9:.2g} GB are free; "
        f"about {int(samples * free / cost.memory):,} samples or fewer classes would fit where it "
        "is the rows that are too many; else take spectral_density and top_eigenpairs"
    )
