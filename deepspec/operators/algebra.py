"""Sums, multiples and compressions of symmetric matrices: an algebra, closed in itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.operators.base import SymmetricOperator
from deepspec.operators.orthonormal import orthonormal_basis


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

    def __radd__(self, other: int) -> AlgebraicOperator:
        """``sum(operators)`` starts at 0."""
        if other != 0:
            raise TypeError(f"expected an operator to add, got {other!r}")
        return self

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

        Multiples of it are compressions, too. A *sum* with it is not: what was removed here is not
        removed from the other terms, so that the sum has all p eigenvalues and a density counts
        those of the removed directions. To keep them out, add first, then deflate.
        """
        return Compression(self, ColumnSpace(pairs.vectors))


class Shaped(AlgebraicOperator):
    """An operator of the size, dtype and device of something it is made of."""

    @property
    @abstractmethod
    def _like(self) -> SymmetricOperator | Tensor: ...

    @property
    def size(self) -> int:
        return self._like.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device


class Projector(AlgebraicOperator):
    """An orthogonal projector P = P² = Pᵀ of known rank."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """The dimension of its range."""


@dataclass(frozen=True, eq=False)
class LinearCombination(Shaped):
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
    def _like(self) -> SymmetricOperator | Tensor:
        return self.terms[0][1]

    def fingerprint(self) -> dict[str, str | int | float]:
        parts = [(factor, operator.fingerprint()) for factor, operator in self.terms]
        named: dict[str, str | int | float] = {}
        for place, (factor, part) in enumerate(parts):
            named[f"term {place} factor"] = factor
            named.update({f"term {place} {name}": value for name, value in part.items()})
        return {**self._identity(), **named}

    def prepare(self, products: int) -> None:
        for _, operator in self.terms:
            operator.prepare(products)

    def plan(self) -> dict[str, str | int]:
        return {
            f"{place}. {name}": value
            for place, (_, operator) in enumerate(self.terms)
            for name, value in operator.plan().items()
        }

    def follow(self, plan: Mapping[str, str | int]) -> None:
        for place, (_, operator) in enumerate(self.terms):
            start = f"{place}. "
            operator.follow(
                {k.removeprefix(start): v for k, v in plan.items() if k.startswith(start)}
            )

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        total = torch.zeros_like(columns)
        for factor, operator in self.terms:
            total.add_(operator @ columns, alpha=factor)
        return total


class ColumnSpace(Shaped, Projector):
    """The orthogonal projector onto the span of given columns, by a basis of it.

    Parameters
    ----------
    columns
        Any (p, k) tensor; dependent columns are found by an SVD with a rank decision at
        ``relative_tolerance`` of the largest singular value.

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
    def _like(self) -> SymmetricOperator | Tensor:
        return self.basis

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.basis @ (self.basis.T @ columns)


class SumOfSpaces(Shaped, Projector):
    """The orthogonal projector onto range(P) + range(Q), for any P and Q.

    P + R, with R the projector onto what Q adds: the span of (I − P) Q. Nothing is counted
    twice, so :attr:`rank` is the dimension of the sum.

    >>> P = ColumnSpace(torch.tensor([[1.0], [0.0], [0.0]]))
    >>> Q = ColumnSpace(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
    >>> SumOfSpaces(P, Q).rank
    2
    """

    def __init__(self, first: Projector, second: Projector) -> None:
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

    @property
    def _like(self) -> SymmetricOperator | Tensor:
        return self.first

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.first @ columns + self.added @ (self.added.T @ columns)


class Compression(Shaped):
    """(I − P) A (I − P): what A is off the range of P.

    Of its p eigenvalues, :attr:`removed` are zero because of P and mean nothing; estimators
    keep their probes off that range (:meth:`keep`), so that these zeros do not enter a density.

    What was taken away stays away: the compression of a compression is one compression, off the
    *sum* of the two ranges. Where the projectors commute (one range inside the other, or orthogonal
    to it, as eigenvectors of the compression are) this is (I − Q)(I − P) A (I − P)(I − Q); where
    they do not, that product would let back in a part of what P removed.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> axes = torch.eye(3)
    >>> twice = A.project_out(ColumnSpace(axes[:, :1])).project_out(ColumnSpace(axes[:, :2]))
    >>> twice.removed, twice @ torch.ones(3)
    (2, tensor([0., 0., 1.]))

    Raises
    ------
    ValueError
        If the projector is of another size.
    """

    def __init__(self, operator: SymmetricOperator, projector: Projector) -> None:
        if operator.size != projector.size:
            raise ValueError(f"expected a projector of size {operator.size}, got {projector.size}")
        self.operator: SymmetricOperator = operator
        self.projector: Projector = projector
        if isinstance(operator, Compression):
            self.operator = operator.operator
            self.projector = SumOfSpaces(operator.projector, projector)

    @property
    def _like(self) -> SymmetricOperator | Tensor:
        return self.operator

    @property
    def removed(self) -> int:
        """The dimension of the subspace that was taken away."""
        return self.projector.rank

    def __mul__(self, factor: float) -> Compression:
        """What is left of the multiple: still without the zeros of what was removed."""
        return Compression(LinearCombination.of((float(factor), self.operator)), self.projector)

    def keep(self, columns: Float[Tensor, "p ..."]) -> Float[Tensor, "p ..."]:
        """(I − P) times columns."""
        return columns - self.projector @ columns

    def fingerprint(self) -> dict[str, str | int | float]:
        inner = {f"compressed {name}": v for name, v in self.operator.fingerprint().items()}
        outer = {f"projector {name}": v for name, v in self.projector.fingerprint().items()}
        return {**self._identity(), "removed": self.removed, **inner, **outer}

    def prepare(self, products: int) -> None:
        self.operator.prepare(products)

    def plan(self) -> dict[str, str | int]:
        return self.operator.plan()

    def follow(self, plan: Mapping[str, str | int]) -> None:
        self.operator.follow(plan)

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.keep(self.operator @ self.keep(columns))


def range_basis(projector: Projector) -> Float[Tensor, "p r"]:
    """An orthonormal basis of a projector's range: its own, or that of rank-many products."""
    if isinstance(projector, ColumnSpace):
        return projector.basis
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(projector.size, projector.rank, generator=generator, dtype=torch.float64)
    return orthonormal_basis(projector @ normal.to(projector.device, projector.dtype), 0.0)
