"""The smallest and the largest eigenvalue of an operator, each with a bound on its error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from deepspec.arguments import check_whole
from deepspec.krylov._arguments import check_operator
from deepspec.krylov._lanczos import lanczos
from deepspec.krylov._probes import unit_probe
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.display import Result


@dataclass(frozen=True, repr=False, kw_only=True)
class Extremes(Result):
    """The two ends of a spectrum, from the inside.

    Attributes
    ----------
    smallest, largest
        λ_min ≤ ``smallest`` and ``largest`` ≤ λ_max, but for rounding.
    smallest_residual, largest_residual
        An eigenvalue lies no further than this from each; at least 10 √m ε ‖A‖ after m steps,
        which is what rounding may hide.
    matvecs
        How many products it took.
    """

    smallest: float
    largest: float
    smallest_residual: float
    largest_residual: float
    matvecs: int

    def _words(self) -> list[str]:
        return [
            f"from {self.smallest:.6g} ± {self.smallest_residual:.1g}",
            f"to {self.largest:.6g} ± {self.largest_residual:.1g}",
            f"{self.matvecs:,} matvecs",
        ]


def extreme_eigenvalues(
    operator: SymmetricOperator,
    steps: int = 64,
    *,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> Extremes:
    """The smallest and the largest eigenvalue of a symmetric operator, with residual bounds.

    The extreme Ritz values θ of one Lanczos run from a random vector (Paige, 1971): an eigenvalue
    lies within ‖A x − θ x‖ = β_m |y_m| of each, x the Ritz vector. That it is the extreme one is
    near certain after a few dozen steps; :func:`top_eigenpairs` says how near, and gives vectors.

    Parameters
    ----------
    operator
        A.
    steps
        How many products at most; three vectors are held.
    seed
        Where the start vector comes from.
    checkpoint, checkpoint_every
        As in :func:`deepspec.krylov.lanczos`.

    Raises
    ------
    ValueError
        If ``steps`` is below 1, or a compression has left nothing.
    FloatingPointError
        If a product is not finite.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([-1.0, 0.0, 3.0], dtype=torch.float64)))
    >>> ends = extreme_eigenvalues(A)
    >>> round(ends.smallest, 9), round(ends.largest, 9)
    (-1.0, 3.0)
    """
    check_operator(operator)
    check_whole(steps, 1, "steps")
    chosen = whole_seed(seed)
    run = lanczos(
        operator,
        steps,
        unit_probe(operator, chosen, 0),
        seed=chosen,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
    )
    values = run.ritz_values
    floor = 10 * run.matvecs**0.5 * operator.epsilon * float(values.abs().max())
    bounds = torch.hypot(run.residual_bounds, torch.tensor(floor, dtype=torch.float64))
    return Extremes(
        smallest=float(values[0]),
        largest=float(values[-1]),
        smallest_residual=float(bounds[0]),
        largest_residual=float(bounds[-1]),
        matvecs=run.matvecs,
    )
