"""A symmetric matrix that is at hand in full, as an operator."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.operators._contract import check_columns
from deepspec.operators.base import SymmetricOperator

ROWS_AT_ONCE = 1024


class MatrixOperator(SymmetricOperator):
    """A dense symmetric matrix as a linear operator.

    >>> A = MatrixOperator(torch.diag(torch.tensor([3.0, 1.0])))
    >>> (2 * A) @ torch.tensor([1.0, 1.0])
    tensor([6., 2.])

    Raises
    ------
    TypeError
        If the matrix is not a floating-point tensor.
    ValueError
        If the matrix is empty, not square, not finite or not symmetric to rounding.
    """

    def __init__(self, matrix: Float[Tensor, "p p"]) -> None:
        check_columns(matrix, "a matrix")
        if matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
            raise ValueError(f"expected a square matrix, got shape {tuple(matrix.shape)}")
        largest = max(float(matrix.max()), -float(matrix.min()))
        # Row by row of blocks: a large matrix need not fit three times.
        starts = range(0, len(matrix), ROWS_AT_ONCE)
        parts = [slice(start, start + ROWS_AT_ONCE) for start in starts]
        gap = max(float((matrix[rows] - matrix[:, rows].T).abs().max()) for rows in parts)
        if gap > 100 * torch.finfo(matrix.dtype).eps * largest:
            raise ValueError("expected a symmetric matrix; pass (M + M.T) / 2 if that is meant")
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self.matrix = matrix.detach()

    def describe(self) -> str:
        return "matrix"

    def fingerprint(self) -> dict[str, str | int | float]:
        digest = hashlib.sha256(self.matrix.cpu().contiguous().numpy().tobytes())
        return {**self._identity(), "matrix": digest.hexdigest()}

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.matrix @ columns
