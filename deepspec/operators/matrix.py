"""A symmetric matrix that is at hand in full, as an operator."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.operators.algebra import Shaped
from deepspec.operators.base import SymmetricOperator


@dataclass(frozen=True, eq=False)
class MatrixOperator(Shaped):
    """A symmetric matrix that is at hand in full.

    >>> A = MatrixOperator(torch.diag(torch.tensor([3.0, 1.0])))
    >>> (2 * A) @ torch.tensor([1.0, 1.0])
    tensor([6., 2.])

    Raises
    ------
    ValueError
        If the matrix is not square or not symmetric to rounding.
    """

    matrix: Float[Tensor, "p p"]

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"expected a square matrix, got shape {tuple(matrix.shape)}")
        tolerance = 100 * torch.finfo(matrix.dtype).eps * float(matrix.abs().max())
        if float((matrix - matrix.T).abs().max()) > tolerance:
            raise ValueError("expected a symmetric matrix; pass (M + M.T) / 2 if that is meant")

    @property
    def _like(self) -> SymmetricOperator | Tensor:
        return self.matrix

    def fingerprint(self) -> dict[str, str | int | float]:
        digest = hashlib.sha256(self.matrix.detach().cpu().contiguous().numpy().tobytes())
        return {**self._identity(), "matrix": digest.hexdigest()}

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.matrix @ columns
