"""What an attribution will take, said before it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass

from deepspec.attribution.measurement import (
    EIGENPROBLEMS,
    SECONDS_PER_CUBE,
    Settings,
    forms_gram,
)
from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.gram import gram_bytes
from deepspec.problem import Problem

# Products in the dimension p, in gradients, when pairs converge as they usually do.
OF_HESSIAN, GRADIENTS_A_PRODUCT = 110, 2.0


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
        of_hessian = OF_HESSIAN + 2 * settings.steps * settings.probes
        seconds["Hess and E"] = GRADIENTS_A_PRODUCT * of_hessian * gradient
    vectors = (3 * array.num_classes + 40) * array.rows.width * 8 if problem is not None else 0
    return Cost(seconds=seconds, memory=vectors + (gram_bytes(array.rows) if exact else 0))
