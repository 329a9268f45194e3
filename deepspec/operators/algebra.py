"""Sums, multiples and compressions of symmetric matrices: an algebra, closed in itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.operators.base import SymmetricOperator


class HasVectors(Protocol):
    """Anything with orthonormal columns to deflate, such as :class:`deepspec.Eigenpairs`."""

    @property
    def vectors(self) -> Float[Tensor, "p k"]: ...


class AlgebraicOperator(SymmetricOperator):
    """A symmetric operator that can be added, scaled and projected.

    Each operation returns another operator and costs nothing until it multiplies.
    """

    def __add__(self, other: SymmetricOperator) -> AlgebraicOperator:
        return LinearCombination.of((1.0, self), (1.0, other))

    def __sub__(self, other: SymmetricOperator) -> AlgebraicOperator:
        return LinearCombination.of((1.0, self), (-1.0, other))

    def __mul__(self, factor: float) -> AlgebraicOperator:
        return LinearCombination.of((float(factor), self))

    def __rmul__(self, factor: float) -> AlgebraicOperator:
        return self * factor

    def __truediv__(self, divisor: float) -> AlgebraicOperator:
        return self * (1.0 / divisor)

    def __neg__(self) -> AlgebraicOperator:
        return self * -1.0

    def project_out(self, projector: Projector) -> Compression:
        """The projection knockout A ⊘ B = (I − BB⁺) A (I − BB⁺) ([002], Definition 3.2).

        Parameters
        ----------
        projector
            BB⁺: a :class:`ColumnSpace` of given vectors, or ``B.range_projector()`` of a
            part of the class structure.
        """
        return Compression(self, projector)

    def deflate(self, pairs: HasVectors) -> Compression:
        """What is left of A off the given eigenvectors ([002], Appendix C.8).

        For exact eigenpairs this is A − Σ λ_i v_i v_iᵀ; for approximate ones it is the better
        of the two, because no cross terms remain.
        """
        return Compression(self, ColumnSpace(pairs.vectors))


class Projector(AlgebraicOperator):
    """An orthogonal projector P = P² = Pᵀ of known rank."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """The dimension of its range."""


@dataclass(frozen=True, eq=False)
class MatrixOperator(AlgebraicOperator):
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
    def size(self) -> int:
        return self.matrix.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.matrix @ columns


@dataclass(frozen=True, eq=False)
class LinearCombination(AlgebraicOperator):
    """Σ_i a_i A_i, one product of each A_i."""

    terms: tuple[tuple[float, SymmetricOperator], ...]

    @staticmethod
    def of(*terms: tuple[float, SymmetricOperator]) -> LinearCombination:
        """Combine, opening up the terms that are combinations themselves.

        Raises
        ------
        TypeError
            If a term is no operator.
        ValueError
            If sizes, dtypes or devices differ.
        """
        flat: list[tuple[float, SymmetricOperator]] = []
        for factor, operator in terms:
            if not isinstance(operator, SymmetricOperator):
                raise TypeError(f"expected an operator, got {type(operator).__name__}")
            if isinstance(operator, LinearCombination):
                flat.extend((factor * inner, term) for inner, term in operator.terms)
            else:
                flat.append((factor, operator))
        first = flat[0][1]
        for _, operator in flat:
            if (operator.size, operator.dtype, operator.device) != (
                first.size,
                first.dtype,
                first.device,
            ):
                raise ValueError(
                    f"expected operators of one size, dtype and device; got {first.size} "
                    f"{first.dtype} {first.device} and {operator.size} {operator.dtype} "
                    f"{operator.device}"
                )
        return LinearCombination(tuple(flat))

    @property
    def size(self) -> int:
        return self.terms[0][1].size

    @property
    def dtype(self) -> torch.dtype:
        return self.terms[0][1].dtype

    @property
    def device(self) -> torch.device:
        return self.terms[0][1].device

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        total = torch.zeros_like(columns)
        for factor, operator in self.terms:
            total.add_(operator @ columns, alpha=factor)
        return total


class ColumnSpace(Projector):
    """The orthogonal projector onto the span of given columns, by a basis of it.

    Parameters
    ----------
    columns
        Any (p, k) tensor; dependent columns are found by a QR with a rank decision at
        ``relative_tolerance`` of the largest.

    >>> P = ColumnSpace(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    >>> P.rank, P @ torch.tensor([3.0, 4.0])
    (1, tensor([3., 0.]))
    """

    def __init__(
        self, columns: Float[Tensor, "p k"], relative_tolerance: float | None = None
    ) -> None:
        if columns.ndim != 2:
            raise ValueError(f"expected columns of shape (p, k), got {tuple(columns.shape)}")
        self.basis = orthonormal_basis(columns, relative_tolerance)

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def size(self) -> int:
        return self.basis.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.basis.dtype

    @property
    def device(self) -> torch.device:
        return self.basis.device

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.basis @ (self.basis.T @ columns)


@dataclass(frozen=True, eq=False)
class Compression(AlgebraicOperator):
    """(I − P) A (I − P): what A is off the range of P.

    Of its p eigenvalues, ``projector.rank`` are zero because of P and mean nothing; estimators
    keep their probes off that range (:meth:`keep`), so that these zeros do not enter a density.
    """

    operator: SymmetricOperator
    projector: Projector

    def __post_init__(self) -> None:
        if self.operator.size != self.projector.size:
            raise ValueError(
                f"expected a projector of size {self.operator.size}, got {self.projector.size}"
            )

    @property
    def size(self) -> int:
        return self.operator.size

    @property
    def dtype(self) -> torch.dtype:
        return self.operator.dtype

    @property
    def device(self) -> torch.device:
        return self.operator.device

    @property
    def removed(self) -> int:
        """The dimension of the subspace that was taken away."""
        return self.projector.rank + (
            self.operator.removed if isinstance(self.operator, Compression) else 0
        )

    def keep(self, columns: Float[Tensor, p * k]) -> Float[Tensor, p * k]:
        """(I − P) times columns."""
        return columns - self.projector @ columns

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.keep(self.operator @ self.keep(columns))


def orthonormal_basis(
    columns: Float[Tensor, "p k"], relative_tolerance: float | None = None
) -> Float[Tensor, "p r"]:
    """An orthonormal basis of the columns' span, of numerical rank r, by SVD in float64."""
    if columns.shape[1] == 0:
        return columns
    wide = columns.double()
    left, singular, _ = torch.linalg.svd(wide, full_matrices=False)
    if relative_tolerance is None:
        relative_tolerance = max(columns.shape) * torch.finfo(columns.dtype).eps
    rank = int((singular > relative_tolerance * singular[0]).sum()) if float(singular[0]) else 0
    return left[:, :rank].to(columns.dtype)
