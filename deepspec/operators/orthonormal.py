"""An orthonormal basis of given columns, with its numerical rank."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_not_negative

# Columns whose singular values lie within a factor of a thousand need no decision about rank.
WELL_CONDITIONED = 1e-3
ROWS_AT_ONCE = 1 << 16


def orthonormal_basis(
    columns: Float[Tensor, "p k"], relative_tolerance: float | None = None
) -> Float[Tensor, "p r"]:
    """An orthonormal basis of the columns' span, of numerical rank r, decided in float64.

    Directions below ``relative_tolerance`` of the largest singular value are rounding and are
    left out; the default is 10 k ε of the columns' dtype. (Not NumPy's p ε: at p = 10⁶ in
    float32 that is 0.1, and would drop directions that are there.)

    Well-conditioned columns X are turned into the basis that is nearest to them, X (XᵀX)^−½
    (Löwdin), in two sweeps through memory; others by a singular value decomposition.
    """
    if relative_tolerance is not None:
        check_not_negative(relative_tolerance, "relative_tolerance")
    if columns.shape[1] == 0:
        return columns
    if relative_tolerance is None:
        relative_tolerance = 10 * columns.shape[1] * torch.finfo(columns.dtype).eps
    if columns.shape[1] <= columns.shape[0] and relative_tolerance <= WELL_CONDITIONED:
        nearest = _nearest(columns)
        if nearest is not None:
            return nearest
    left, singular, _ = torch.linalg.svd(columns.double(), full_matrices=False)
    rank = int((singular > relative_tolerance * singular[0]).sum()) if float(singular[0]) else 0
    return left[:, :rank].to(columns.dtype)


def _nearest(columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"] | None:
    """X (XᵀX)^−½ in float64 inside, or None where the columns are not well-conditioned.

    With a condition number of κ the first round leaves κ² ε, ε = 2·10⁻¹⁶: less than float32 tells,
    and what a second round takes away in float64.
    """
    gram = _gram(columns)
    if not bool(torch.isfinite(gram).all()):  # squares overflow; singular values do not
        return None
    squares, turn = torch.linalg.eigh(gram)
    if not bool(squares[0] > WELL_CONDITIONED**2 * squares[-1]):
        return None
    found = _times(columns, (turn / squares.sqrt()) @ turn.T)
    if columns.dtype == torch.float64:
        squares, turn = torch.linalg.eigh(_gram(found))
        found = _times(found, (turn / squares.sqrt()) @ turn.T)
    return found


def _gram(columns: Float[Tensor, "p k"]) -> Float[Tensor, "k k"]:
    """XᵀX in float64, without a copy of all of X."""
    count = columns.shape[1]
    total = columns.new_zeros(count, count, dtype=torch.float64)
    for few in columns.split(ROWS_AT_ONCE):
        wide = few.double()
        total += wide.T @ wide
    return total


def _times(columns: Float[Tensor, "p k"], turn: Float[Tensor, "k k"]) -> Float[Tensor, "p k"]:
    """X T, multiplied in float64, in the precision of X."""
    found = columns.new_empty(columns.shape)
    for few, into in zip(columns.split(ROWS_AT_ONCE), found.split(ROWS_AT_ONCE), strict=True):
        into.copy_(few.double() @ turn)
    return found
