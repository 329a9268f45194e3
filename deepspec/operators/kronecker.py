"""Kronecker products and their sums: curvature of a weight as curvature of its two sides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.operators._contract import check_columns
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.factors import Factor, WholeFactor

Matrix = Factor | Tensor


class KroneckerSum(SymmetricOperator):
    """Σ_r B_r ⊗ A_r on matrices V (out × in), flattened row by row: V ↦ Σ_r B_r V A_r.

    A product costs one multiplication by each factor; no matrix of out·in rows is formed. With
    NumPy's and PyTorch's ``kron`` this is Σ kron(B_r, A_r).

    Parameters
    ----------
    terms
        Pairs (B, A) of symmetric matrices (out × out) and (in × in), or factors.

    Attributes
    ----------
    rows, columns
        out and in, the shape of V.

    Raises
    ------
    TypeError
        If there is no term, or one of them is no pair of matrices.
    ValueError
        If a matrix is not symmetric, or shapes, precisions or devices differ between terms.

    >>> eye = torch.eye(2)
    >>> K = KroneckerSum([(eye, eye), (2 * eye, eye)])
    >>> K @ torch.arange(4.0)
    tensor([0., 3., 6., 9.])
    >>> K.trace()
    12.0
    """

    def __init__(self, terms: Sequence[tuple[Matrix, Matrix]]) -> None:
        if not terms:
            raise TypeError("expected at least one pair of matrices (B, A), got none")
        self.terms = tuple((_factor(left), _factor(right)) for left, right in terms)
        first = self.terms[0]
        for pair in self.terms:
            for kind, mine, theirs in zip(("B", "A"), first, pair, strict=True):
                if mine.size != theirs.size:
                    raise ValueError(
                        f"expected every {kind} of one size, got {mine.size} and {theirs.size}"
                    )
            for factor in pair:
                if (factor.dtype, factor.device) != (first[0].dtype, first[0].device):
                    raise ValueError(
                        f"expected all matrices in {first[0].dtype} on {first[0].device}, got "
                        f"{factor.dtype} on {factor.device}; move them with .to(...)"
                    )
        self.rows, self.columns = first[0].size, first[1].size
        super().__init__(self.rows * self.columns, first[0].dtype, first[0].device)

    def describe(self) -> str:
        sizes = f"{self.rows:,} ⊗ {self.columns:,}"
        return f"Kronecker sum of {len(self.terms)} terms {sizes}"

    def trace(self) -> float:
        """Σ_r tr B_r · tr A_r."""
        return sum(left.trace() * right.trace() for left, right in self.terms)

    def inner(self, other: KroneckerSum) -> float:
        """⟨K, L⟩ = tr KL = Σ_{r,s} ⟨B_r, B_s⟩⟨A_r, A_s⟩, from the factors alone."""
        return sum(
            left.inner(their_left) * right.inner(their_right)
            for left, right in self.terms
            for their_left, their_right in other.terms
        )

    def squared_norm(self) -> float:
        """‖K‖² (Frobenius), from the factors alone."""
        return self.inner(self)

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        matrices = columns.T.reshape(-1, self.rows, self.columns)
        total = torch.zeros_like(matrices)
        for left, right in self.terms:
            total += right.leave(left.times(right.enter(matrices)))
        return total.flatten(1).T


class KroneckerProduct(KroneckerSum):
    """B ⊗ A on matrices V (out × in), flattened row by row: V ↦ B V A, with its exact spectrum.

    Its eigenvalues are all products of one of B and one of A, its eigenvectors the outer products
    of theirs.

    >>> K = KroneckerProduct(torch.diag(torch.tensor([3.0, 1.0])), 2 * torch.eye(2))
    >>> K.eigenvalues(3)
    tensor([6., 6., 2.], dtype=torch.float64)
    >>> K @ torch.ones(4)
    tensor([6., 6., 2., 2.])
    """

    def __init__(self, left: Matrix, right: Matrix) -> None:
        super().__init__([(left, right)])

    @property
    def left(self) -> Factor:
        """B (out × out)."""
        return self.terms[0][0]

    @property
    def right(self) -> Factor:
        """A (in × in)."""
        return self.terms[0][1]

    def describe(self) -> str:
        return f"Kronecker product {self.rows:,} ⊗ {self.columns:,}"

    def eigenvalues(self, k: int | None = None) -> Float[Tensor, " k"]:
        """The k largest eigenvalues (all p by default), descending, float64.

        For k of them no more than about k log k products are formed.
        """
        wanted = self.size if k is None else min(check_count(k), self.size)
        lefts, rights = self.left.eigenvalues, self.right.eigenvalues
        values = top_products(lefts, rights, wanted)[0]
        # A thin factor leaves out zeros.
        missing = min(self.size - len(lefts) * len(rights), wanted)
        zeros = values.new_zeros(missing)
        return torch.cat([values, zeros]).sort(descending=True)[0][:wanted]

    def eigenpairs(self, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "p k"]]:
        """The k largest eigenvalues and their vectors; fewer where the others are zero."""
        (lefts, left_vectors), (rights, right_vectors) = (
            self.left.eigenpairs,
            self.right.eigenpairs,
        )
        values, rows, columns = top_products(lefts, rights, check_count(k))
        vectors = outer_columns(left_vectors[:, rows], right_vectors[:, columns])
        return values, vectors.to(self.dtype)


class KroneckerBasis(SymmetricOperator):
    """A diagonal in a basis of outer products: V ↦ U_B (d ∘ (U_Bᵀ V U_A)) U_Aᵀ.

    The diagonal d holds its eigenvalues, so that they are exact. With d = λ_B λ_Aᵀ it is
    :class:`KroneckerProduct`.

    Parameters
    ----------
    left, right
        Orthonormal columns U_B (out × r) and U_A (in × s).
    values
        d (r × s).

    Raises
    ------
    TypeError
        If something is not a floating-point tensor.
    ValueError
        If shapes do not fit, or columns are not orthonormal.

    >>> E = KroneckerBasis(torch.eye(2), torch.eye(2), torch.tensor([[3.0, 1.0], [2.0, 5.0]]))
    >>> E.eigenvalues(2)
    tensor([5., 3.], dtype=torch.float64)
    >>> E @ torch.ones(4)
    tensor([3., 1., 2., 5.])
    """

    def __init__(
        self,
        left: Float[Tensor, "o r"],
        right: Float[Tensor, "i s"],
        values: Float[Tensor, "r s"],
    ) -> None:
        for name, basis in (("left", left), ("right", right)):
            check_columns(basis, f"{name} columns")
            gram = basis.T @ basis
            gap = float((gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).norm())
            if gap > 1e3 * max(gram.shape) * torch.finfo(gram.dtype).eps:
                raise ValueError(
                    f"expected orthonormal {name} columns, got a Gram matrix {gap:.1e} away from "
                    "the identity; take those of torch.linalg.eigh"
                )
        check_columns(values, "values")
        if values.shape != (left.shape[1], right.shape[1]):
            raise ValueError(
                f"expected values of shape ({left.shape[1]}, {right.shape[1]}), one for each pair "
                f"of columns, got {tuple(values.shape)}"
            )
        self.rows, self.columns = len(left), len(right)
        super().__init__(self.rows * self.columns, left.dtype, left.device)
        self.left, self.right, self.values = left, right, values.double()

    def describe(self) -> str:
        return f"diagonal in a Kronecker basis {self.rows:,} ⊗ {self.columns:,}"

    def eigenvalues(self, k: int | None = None) -> Float[Tensor, " k"]:
        """The k largest eigenvalues (all p by default), descending, float64."""
        wanted = self.size if k is None else min(check_count(k), self.size)
        zeros = self.values.new_zeros(min(self.size - self.values.numel(), wanted))
        return torch.cat([self.values.flatten(), zeros]).sort(descending=True)[0][:wanted]

    def eigenpairs(self, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "p k"]]:
        """The k largest of the diagonal and their vectors."""
        found = self.values.flatten().topk(min(check_count(k), self.values.numel()))
        rows, columns = found.indices // len(self.right.T), found.indices % len(self.right.T)
        return found.values, outer_columns(self.left[:, rows], self.right[:, columns])

    def trace(self) -> float:
        """Σ d."""
        return float(self.values.sum())

    def squared_norm(self) -> float:
        """‖K‖² (Frobenius)."""
        return float(self.values.square().sum())

    @cached_property
    def _diagonal(self) -> Float[Tensor, "r s"]:
        return self.values.to(self.dtype)

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        matrices = columns.T.reshape(-1, self.rows, self.columns)
        inside = self._diagonal * (self.left.T @ (matrices @ self.right))
        return (self.left @ inside @ self.right.T).flatten(1).T


def outer_columns(left: Float[Tensor, "o k"], right: Float[Tensor, "i k"]) -> Float[Tensor, "oi k"]:
    """u ⊗ v of each pair of columns: the Khatri–Rao product.

    >>> outer_columns(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]]))[:, 0]
    tensor([1., 3., 2., 6.])
    """
    return (left[:, None] * right[None]).flatten(0, 1)


def top_products(
    left: Float[Tensor, " r"], right: Float[Tensor, " s"], k: int
) -> tuple[Float[Tensor, " k"], Int[Tensor, " k"], Int[Tensor, " k"]]:
    """The k largest a_i b_j of two descending lists, with i and j, without forming them all.

    Of lists that are not negative, a_i b_j is among the k largest only if (i + 1)(j + 1) ≤ k: so
    many products are at least as large. These pairs are about k log k. Two negative numbers are
    the same case from the other end; where products of these kinds are fewer than k, all are
    formed.

    >>> a, b = torch.tensor([4.0, 2.0, 1.0]), torch.tensor([3.0, 1.0, 0.5])
    >>> top_products(a, b, 3)
    (tensor([12.,  6.,  4.]), tensor([0, 1, 0]), tensor([0, 0, 1]))
    """
    k = min(k, len(left) * len(right))
    if k * (1 + math.log(max(k, 1))) < len(left) * len(right):
        pairs = []
        for flipped in (False, True):
            places = [_not_negative(list_, flipped) for list_ in (left, right)]
            rows, columns = _under_hyperbola(len(places[0]), len(places[1]), k, left.device)
            pairs.append((places[0][rows], places[1][columns]))
        rows, columns = (torch.cat(side) for side in zip(*pairs, strict=True))
        if len(rows) >= k:
            values, order = (left[rows] * right[columns]).sort(descending=True, stable=True)
            return values[:k], rows[order[:k]], columns[order[:k]]
    values, order = (left[:, None] * right).flatten().sort(descending=True, stable=True)
    return values[:k], order[:k] // len(right), order[:k] % len(right)


def _not_negative(values: Float[Tensor, " r"], flipped: bool) -> Int[Tensor, " q"]:
    """Places of the numbers ≥ 0, largest first; flipped, of those < 0, smallest first."""
    places = torch.arange(len(values), device=values.device)
    return places[values < 0].flip(0) if flipped else places[values >= 0]


def _under_hyperbola(
    rows: int, columns: int, k: int, device: torch.device
) -> tuple[Int[Tensor, " q"], Int[Tensor, " q"]]:
    """All (i, j) with (i + 1)(j + 1) ≤ k."""
    firsts = torch.arange(min(rows, k), device=device)
    counts = (k // (firsts + 1)).clamp_max(columns)
    lefts = firsts.repeat_interleave(counts)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return lefts, torch.arange(len(lefts), device=device) - starts


def check_count(k: int) -> int:
    """k, a whole number of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"expected k, how many eigenvalues, as a whole number ≥ 1, got {k!r}")
    return k


def _factor(matrix: Matrix) -> Factor:
    return matrix if isinstance(matrix, Factor) else WholeFactor(matrix)
