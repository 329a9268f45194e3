"""Orthogonal projectors: of given columns, and onto sums of spaces."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.operators._contract import check_columns
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.orthonormal import orthonormal_basis


class Projector(SymmetricOperator):
    """An orthogonal projector P = P² = Pᵀ of known rank."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """The dimension of its range."""

    def describe(self) -> str:
        return f"projector onto {dimensions(self.rank)}"


class ColumnSpace(Projector):
    """The orthogonal projector onto the span of given columns, by a basis of it.

    Parameters
    ----------
    columns
        Any (p, k) tensor; dependent columns are found by an SVD with a rank decision at
        ``relative_tolerance`` of the largest singular value.

    Raises
    ------
    TypeError
        If the columns are not a floating-point tensor.
    ValueError
        If they are not of shape (p, k), or not finite.

    >>> P = ColumnSpace(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    >>> P.rank, P @ torch.tensor([3.0, 4.0])
    (1, tensor([3., 0.]))
    """

    def __init__(
        self, columns: Float[Tensor, "p k"], relative_tolerance: float | None = None
    ) -> None:
        check_columns(columns, "columns")
        self.basis = orthonormal_basis(columns.detach(), relative_tolerance)
        super().__init__(self.basis.shape[0], self.basis.dtype, self.basis.device)

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.basis @ (self.basis.T @ columns)


class SumOfSpaces(Projector):
    """The orthogonal projector onto range(P) + range(Q), for any P and Q.

    P + R, with R the projector onto what Q adds: the span of (I − P) Q. Nothing is counted
    twice, so :attr:`rank` is the dimension of the sum.

    >>> P = ColumnSpace(torch.tensor([[1.0], [0.0], [0.0]]))
    >>> Q = ColumnSpace(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
    >>> SumOfSpaces(P, Q).rank
    2
    """

    def __init__(self, first: Projector, second: Projector) -> None:
        super().__init__(first.size, first.dtype, first.device)
        self.first = first
        basis = range_basis(second)
        added = basis - first @ basis
        # The basis is orthonormal: what is below this is rounding, however small the largest is.
        level = 100 * torch.finfo(basis.dtype).eps
        left, singular, _ = torch.linalg.svd(added.double(), full_matrices=False)
        new = left[:, singular > level].to(basis.dtype)
        self.added = new - first @ new

    @property
    def rank(self) -> int:
        return self.first.rank + self.added.shape[1]

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.first @ columns + self.added @ (self.added.T @ columns)


def range_basis(projector: Projector) -> Float[Tensor, "p r"]:
    """An orthonormal basis of a projector's range: its own, or that of rank-many products."""
    if isinstance(projector, ColumnSpace):
        return projector.basis
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(projector.size, projector.rank, generator=generator, dtype=torch.float64)
    return orthonormal_basis(projector @ normal.to(projector.device, projector.dtype), 0.0)


def dimensions(count: int) -> str:
    """So many of them, in words."""
    return "1 dimension" if count == 1 else f"{count:,} dimensions"
