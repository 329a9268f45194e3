"""The two sides of a Kronecker product: symmetric matrices, whole or by a few rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.operators._contract import check_columns
from deepspec.operators.matrix import MatrixOperator


class Factor(ABC):
    """A symmetric d × d matrix M that multiplies from either side, in whichever form is small."""

    size: int
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def times(self, columns: Float[Tensor, "... d k"]) -> Float[Tensor, "... d k"]:
        """M V."""

    @abstractmethod
    def enter(self, rows: Float[Tensor, "... k d"]) -> Float[Tensor, "... k r"]:
        """V Rᵀ: the first half of V M = (V Rᵀ) R, so that what is between is as short as R."""

    @abstractmethod
    def leave(self, rows: Float[Tensor, "... k r"]) -> Float[Tensor, "... k d"]:
        """The second half."""

    @abstractmethod
    def dense(self) -> Float[Tensor, "d d"]:
        """M itself."""

    @abstractmethod
    def inner(self, other: Factor) -> float:
        """⟨M, N⟩ = tr MN."""

    @abstractmethod
    def trace(self) -> float:
        """tr M."""

    @cached_property
    def eigenpairs(self) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
        """All eigenvalues that may differ from zero, descending, and their vectors; float64."""
        return self._eigenpairs()

    @cached_property
    def eigenvalues(self) -> Float[Tensor, " r"]:
        """The same without vectors, in a fraction of the time."""
        return self.eigenpairs[0] if "eigenpairs" in vars(self) else self._eigenvalues()

    @abstractmethod
    def _eigenvalues(self) -> Float[Tensor, " r"]: ...

    @abstractmethod
    def _eigenpairs(self) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]: ...

    def forms(self, rows: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """vᵀMv for each row v."""
        return (self.leave(self.enter(rows)) * rows).sum(dim=-1)


class WholeFactor(Factor):
    """A matrix that is at hand.

    Raises
    ------
    TypeError, ValueError
        As :class:`deepspec.MatrixOperator`: not a finite symmetric floating-point matrix.
    """

    def __init__(self, matrix: Float[Tensor, "d d"]) -> None:
        self.matrix = MatrixOperator(matrix).matrix
        self.size, self.dtype, self.device = len(matrix), matrix.dtype, matrix.device

    def times(self, columns: Float[Tensor, "... d k"]) -> Float[Tensor, "... d k"]:
        return self.matrix @ columns

    def enter(self, rows: Float[Tensor, "... k d"]) -> Float[Tensor, "... k d"]:
        return rows @ self.matrix

    def leave(self, rows: Float[Tensor, "... k d"]) -> Float[Tensor, "... k d"]:
        return rows

    def dense(self) -> Float[Tensor, "d d"]:
        return self.matrix

    def inner(self, other: Factor) -> float:
        if isinstance(other, ThinFactor):
            return other.inner(self)
        return float((self.matrix.double() * other.dense().double()).sum())

    def trace(self) -> float:
        return float(self.matrix.double().trace())

    def _eigenvalues(self) -> Float[Tensor, " d"]:
        return torch.linalg.eigvalsh(self.matrix.double()).flip(0)

    def _eigenpairs(self) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
        values, vectors = torch.linalg.eigh(self.matrix.double())
        return values.flip(0), vectors.flip(1)


class ThinFactor(Factor):
    """RᵀR of fewer rows than columns: a second moment that is known by its samples.

    Raises
    ------
    TypeError, ValueError
        If the rows are not a finite floating-point tensor (r, d).

    >>> M = ThinFactor(torch.tensor([[3.0, 4.0]]))
    >>> M.dense(), M.eigenpairs[0]
    (tensor([[ 9., 12.],
            [12., 16.]]), tensor([25.], dtype=torch.float64))
    """

    def __init__(self, rows: Float[Tensor, "r d"]) -> None:
        check_columns(rows, "rows of a factor")
        self.rows = rows.detach()
        self.size, self.dtype, self.device = rows.shape[1], rows.dtype, rows.device

    def times(self, columns: Float[Tensor, "... d k"]) -> Float[Tensor, "... d k"]:
        return self.rows.T @ (self.rows @ columns)

    def enter(self, rows: Float[Tensor, "... k d"]) -> Float[Tensor, "... k r"]:
        return rows @ self.rows.T

    def leave(self, rows: Float[Tensor, "... k r"]) -> Float[Tensor, "... k d"]:
        return rows @ self.rows

    def forms(self, rows: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        return self.enter(rows).square().sum(dim=-1)

    def dense(self) -> Float[Tensor, "d d"]:
        return self.rows.T @ self.rows

    def inner(self, other: Factor) -> float:
        return float(other.forms(self.rows).double().sum())

    def trace(self) -> float:
        return float(self.rows.double().square().sum())

    def _eigenvalues(self) -> Float[Tensor, " r"]:
        rows = self.rows.double()
        values = torch.linalg.eigvalsh(rows @ rows.T).flip(0).clamp_min(0.0)
        return values[: self.size]  # beyond it all are zero

    def _eigenpairs(self) -> tuple[Float[Tensor, " r"], Float[Tensor, "d r"]]:
        left, singular, _ = torch.linalg.svd(self.rows.double().T, full_matrices=False)
        return singular.square(), left


class MomentSum:
    """Σ v vᵀ over rows that come in batches: kept as rows while they are few, then as a matrix.

    Up to d/2 rows multiply in fewer operations than the d × d matrix. At most d² numbers and one
    batch are held.

    >>> moment = MomentSum(2)
    >>> for value in (1.0, 2.0, 3.0):
    ...     moment.add(torch.tensor([[value, 0.0]]))
    >>> moment.factor().dense()
    tensor([[14.,  0.],
            [ 0.,  0.]])

    Attributes
    ----------
    size
        d.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: list[Tensor] = []
        self._matrix: Tensor | None = None

    def add(self, rows: Float[Tensor, "b d"]) -> None:
        """Take a batch of rows."""
        self._rows.append(rows.detach())
        if self._matrix is not None or 2 * sum(map(len, self._rows)) > self.size:
            gathered = self._rows[0] if len(self._rows) == 1 else torch.cat(self._rows)
            found = gathered.T @ gathered
            self._matrix = found if self._matrix is None else self._matrix.add_(found)
            self._rows = []

    def factor(self, scale: float = 1.0) -> Factor:
        """``scale`` times the sum so far.

        Raises
        ------
        ValueError
            If nothing was added.
        """
        if self._matrix is not None:
            return WholeFactor(scale * self._matrix)
        if not self._rows:
            raise ValueError("expected rows of which to take the second moment, got none")
        return ThinFactor(scale**0.5 * torch.cat(self._rows))
