"""S = D Dᵀ at hand, in the smaller of its two spaces: exact spectra of all that is made from it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.known_nulls import OffKnownNulls
from deepspec.class_structure.rows import Rows
from deepspec.operators import SymmetricOperator

# Beside S or D: what a symmetric transformation, its transpose and the eigenvalue solver take.
MATRICES = 5
RowMap = Callable[[Float[Tensor, "m k"]], Float[Tensor, "m k"]]


class Gram(SymmetricOperator):
    """S = D Dᵀ (m × m), formed, in float64 inside; a symmetric operator in the rows' precision."""

    @abstractmethod
    def times(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """S X in float64."""

    @cached_property
    def eigenpairs(self) -> tuple[Float[Tensor, " r"], Float[Tensor, "m r"]]:
        """Eigenvalues, descending, with eigenvectors: all that may differ from zero."""
        return self._eigenpairs()

    @cached_property
    def eigenvalues(self) -> Float[Tensor, " r"]:
        """The same without eigenvectors."""
        if "eigenpairs" in vars(self):
            return self.eigenpairs[0]
        return self.transformed(lambda rows: rows)

    @property
    def rounding(self) -> float:
        """m ε of the largest eigenvalue: below that what a knockout leaves is zero."""
        return rounding(self.eigenvalues, self.dtype)

    @abstractmethod
    def _eigenpairs(self) -> tuple[Float[Tensor, " r"], Float[Tensor, "m r"]]: ...

    @abstractmethod
    def transformed(self, root: RowMap) -> Float[Tensor, " r"]:
        """The eigenvalues of R S Rᵀ, descending, for a map R of the rows."""

    @abstractmethod
    def congruent(self, form: RowMap) -> Float[Tensor, " r"]:
        """The nonzero eigenvalues of DᵀMD, for any symmetric M."""

    @abstractmethod
    def lost_with(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, "m s"]:
        """F with F Fᵀ what S loses when the range of DᵀE is projected out of V.

        From the means DᵀE each by its own length, so that one of next to no weight counts like
        another; S's eigenvectors know it to rounding of the largest eigenvalue only.
        """

    @abstractmethod
    def without_range(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, " s"]:
        """The eigenvalues of V ⊘ DᵀEEᵀD: V off the range of DᵀE; descending."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What :func:`restore_gram` needs to make it again."""

    @abstractmethod
    def trace(self) -> float:
        """tr S = tr V."""

    def inside(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, "r r"]:
        """EᵀS E, float64."""
        wide = basis.double()
        found = wide.T @ self.times(wide)
        return (found + found.T) / 2

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.times(columns.double()).to(columns.dtype)

    def describe(self) -> str:
        return "Gram matrix of rows"


class MatrixGram(Gram):
    """S itself, where there are fewer rows than entries in a vector.

    ``nulls`` are its known null vectors, one for each sample: see :meth:`Rows.nulls`.
    """

    def __init__(
        self,
        matrix: Float[Tensor, "m m"],
        dtype: torch.dtype,
        nulls: Float[Tensor, "n K"] | None = None,
    ) -> None:
        super().__init__(len(matrix), dtype, matrix.device)
        self.matrix, self.nulls = matrix, nulls

    def times(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.matrix @ columns.double()

    def _eigenpairs(self) -> tuple[Float[Tensor, " m"], Float[Tensor, "m m"]]:
        if self.nulls is None:
            values, vectors = torch.linalg.eigh(self.matrix)
            return values.flip(0).clamp_min(0.0), vectors.flip(1)
        off = OffKnownNulls.of(self.nulls)
        smaller = off.coordinates(off.coordinates(self.matrix).T)
        values, vectors = torch.linalg.eigh((smaller + smaller.T) / 2)
        return values.flip(0).clamp_min(0.0), off.expand(vectors.flip(1))

    def transformed(self, root: RowMap) -> Float[Tensor, " r"]:
        return descending(root(root(self.matrix).T.contiguous()))

    def congruent(self, form: RowMap) -> Float[Tensor, " r"]:
        values, vectors = self.eigenpairs
        kept = values > rounding(values, self.matrix.dtype)
        factor = vectors[:, kept] * values[kept].sqrt()
        return descending(factor.T @ form(factor))

    def lost_with(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, "m s"]:
        return schur_factor(basis.double(), self.times(basis), self.dtype)

    def without_range(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, " m"]:
        if not basis.shape[1]:
            return self.eigenvalues
        factor = self.lost_with(basis)
        return descending(self.matrix - factor @ factor.T)

    def state(self) -> dict[str, Tensor]:
        known = {} if self.nulls is None else {"nulls": self.nulls}
        return {"matrix": self.matrix, **known}

    def trace(self) -> float:
        return float(self.matrix.trace())


class FactorGram(Gram):
    """S = D Dᵀ by D, where vectors are shorter than there are rows: everything is d × d."""

    def __init__(self, factor: Float[Tensor, "m d"], dtype: torch.dtype) -> None:
        super().__init__(len(factor), dtype, factor.device)
        self.factor = factor

    def times(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.factor @ (self.factor.T @ columns.double())

    def _eigenpairs(self) -> tuple[Float[Tensor, " d"], Float[Tensor, "m d"]]:
        left, singular, _ = torch.linalg.svd(self.factor, full_matrices=False)
        return singular.square(), left

    def transformed(self, root: RowMap) -> Float[Tensor, " d"]:
        changed = root(self.factor)
        return descending(changed.T @ changed)

    def congruent(self, form: RowMap) -> Float[Tensor, " d"]:
        return descending(self.factor.T @ form(self.factor))

    def lost_with(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, "m s"]:
        return self.factor @ self._span(basis)

    def without_range(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, " d"]:
        if not basis.shape[1]:
            return self.eigenvalues
        span = self._span(basis)
        off = self.factor - (self.factor @ span) @ span.T
        return descending(off.T @ off)

    def _span(self, basis: Float[Tensor, "m r"]) -> Float[Tensor, "d s"]:
        """An orthonormal basis of the range of DᵀE, its rank decided on directions."""
        means = self.factor.T @ basis.double()
        lengths = means.norm(dim=0)
        unit = means / torch.where(lengths > 0, lengths, 1.0)
        if not unit.shape[1]:
            return unit
        left, singular, _ = torch.linalg.svd(unit, full_matrices=False)
        level = 100 * len(lengths) * torch.finfo(self.dtype).eps
        return left[:, singular.square() > level * singular.square().amax()]

    def state(self) -> dict[str, Tensor]:
        return {"factor": self.factor}

    def trace(self) -> float:
        return float(self.factor.square().sum())


def restore_gram(state: dict[str, Tensor], dtype: torch.dtype) -> Gram:
    """The Gram matrix that left this state."""
    if "matrix" in state:
        return MatrixGram(state["matrix"], dtype, state.get("nulls"))
    return FactorGram(state["factor"], dtype)


def gram_bytes(rows: Rows) -> int:
    """What forming S takes at its peak, matrices of its eigenvalue problems included."""
    small = min(rows.size, rows.width)
    return 8 * (MATRICES * small**2 + 2 * small * rows.size)


def require_room(rows: Rows) -> None:
    """Raise MemoryError, with what would fit, where S and its eigenvalue problems do not."""
    needed, free = gram_bytes(rows), rows.free_memory()
    if needed > free:
        fitting = int((free / (8 * (MATRICES + 2))) ** 0.5)
        raise MemoryError(
            f"expected {needed / 1e9:.3g} GB for the Gram matrix of {rows.size:,} rows and its "
            f"spectra, {free / 1e9:.3g} GB are free; about {fitting:,} rows (samples × classes) "
            "would fit: take a subset, or use estimates (spectral_density, top_eigenpairs)"
        )


def form_gram(rows: Rows) -> Gram:
    """S, in the smaller space.

    Raises
    ------
    MemoryError
        If it does not fit; says how many rows would.
    """
    require_room(rows)
    if rows.width < rows.size:
        return FactorGram(rows.dense().double(), rows.dtype)
    return MatrixGram(rows.gram().double(), rows.dtype, rows.nulls())


def descending(matrix: Float[Tensor, "m m"]) -> Float[Tensor, " m"]:
    """The eigenvalues of a symmetric matrix, largest first, float64."""
    if not len(matrix):
        return matrix.new_zeros(0, dtype=torch.float64)
    return torch.linalg.eigvalsh((matrix + matrix.T) / 2).double().flip(0)


def rounding(values: Float[Tensor, " m"], dtype: torch.dtype) -> float:
    """m ε of the largest: an eigenvalue below that is zero, as far as this precision tells."""
    return len(values) * torch.finfo(dtype).eps * float(values.abs().amax()) if len(values) else 0.0


def nonzero(values: Float[Tensor, " m"], dtype: torch.dtype) -> Float[Tensor, " r"]:
    """The eigenvalues that are not rounding."""
    return values[values.abs() > rounding(values, dtype)]


def schur_factor(
    basis: Float[Tensor, "m r"], image: Float[Tensor, "m r"], dtype: torch.dtype
) -> Float[Tensor, "m s"]:
    """F with F Fᵀ = Y (EᵀY)⁺ Yᵀ, Y = S E: what S loses when the range of DᵀE is projected out.

    The rank is decided on the means' directions, so that a short mean counts like a long one.
    """
    gram = basis.double().T @ image.double()
    lengths = gram.diagonal().clamp_min(0.0).sqrt()
    scale = torch.where(lengths > 0, 1.0 / torch.where(lengths > 0, lengths, 1.0), 0.0)
    values, vectors = torch.linalg.eigh(scale[:, None] * ((gram + gram.T) / 2) * scale)
    level = 100 * max(1, len(values)) * torch.finfo(dtype).eps
    kept = values > level * values[-1:].abs()
    return image.double() @ (scale[:, None] * vectors[:, kept] / values[kept].sqrt())
