"""An orthonormal basis of given columns, with its numerical rank."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_not_negative


def orthonormal_basis(
    columns: Float[Tensor, "p k"], relative_tolerance: float | None = None
) -> Float[Tensor, "p r"]:
    """An orthonormal basis of the columns' span, of numerical rank r, by SVD in float64.

    Directions below ``relative_tolerance`` of the largest singular value are rounding and are
    left out; the default is 10 k ε of the columns' dtype. (Not NumPy's p ε: at p = 10⁶ in
    float32 that is 0.1, and would drop directions that are there.)
    """
    if relative_tolerance is not None:
        check_not_negative(relative_tolerance, "relative_tolerance")
    if columns.shape[1] == 0:
        return columns
    left, singular, _ = torch.linalg.svd(columns.double(), full_matrices=False)
    if relative_tolerance is None:
        relative_tolerance = 10 * columns.shape[1] * torch.finfo(columns.dtype).eps
    rank = int((singular > relative_tolerance * singular[0]).sum()) if float(singular[0]) else 0
    return left[:, :rank].to(columns.dtype)
