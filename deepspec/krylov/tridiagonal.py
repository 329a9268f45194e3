"""What a Lanczos run leaves: a tridiagonal matrix, whose eigenvalues are a Gauss quadrature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.storage.display import Result


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Tridiagonal(Result):
    """What a Lanczos run leaves: the tridiagonal T = VᵀAV of A on the Krylov space of its start.

    Papyan (2020), Algorithms 1 and 2.

    Attributes
    ----------
    diagonal, off_diagonal
        α_1 … α_m and β_1 … β_{m−1}, in float64.
    next_off_diagonal
        β_m, which couples the space to what lies outside; 0 when nothing does.
    exhausted
        Whether the start vector's invariant subspace was reached: then the Ritz values are
        eigenvalues and the weights are exact.
    basis
        V where the run was reorthogonalised, else None.

    >>> one = torch.tensor([1.0], dtype=torch.float64)
    >>> T = Tridiagonal(
    ...     diagonal=one.expand(2), off_diagonal=one, next_off_diagonal=0.5, exhausted=False
    ... )
    >>> T.ritz_values, T.ritz_weights
    (tensor([0., 2.], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))
    """

    diagonal: Float[Tensor, " m"]
    off_diagonal: Float[Tensor, " k"]
    next_off_diagonal: float
    exhausted: bool
    basis: Float[Tensor, "p m"] | None = None

    @property
    def matvecs(self) -> int:
        """One product a step."""
        return len(self.diagonal)

    def _words(self) -> list[str]:
        ritz = self.ritz_values
        words = [
            f"{len(ritz)} steps",
            f"Ritz values in [{float(ritz[0]):.4g}, {float(ritz[-1]):.4g}]",
        ]
        words.append(f"{self.matvecs:,} matvecs")
        words.append("with its basis" if self.basis is not None else "without a basis")
        return [*words, "an invariant subspace"] if self.exhausted else words

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Eigenvalues, and the first and the last row of the eigenvectors."""
        diagonal, beside = self.diagonal.double().numpy(), self.off_diagonal.double().numpy()
        if diagonal.shape[0] == 1:
            return diagonal.copy(), np.ones(1), np.ones(1)
        values, vectors = scipy.linalg.eigh_tridiagonal(diagonal, beside)
        return values, vectors[0].copy(), vectors[-1].copy()

    @property
    def ritz_values(self) -> Float[Tensor, " m"]:
        """Eigenvalues of T, ascending: the nodes of the start vector's Gauss quadrature."""
        return torch.from_numpy(self._eigen[0])

    @property
    def ritz_weights(self) -> Float[Tensor, " m"]:
        """y[1]²: the quadrature's weights, of sum 1; each is the start's mass about one node."""
        return torch.from_numpy(self._eigen[1] ** 2)

    @property
    def residual_bounds(self) -> Float[Tensor, " m"]:
        """β_m |y[m]| = ‖A x − θ x‖ for the Ritz vector x: an eigenvalue lies this close to θ."""
        return torch.from_numpy(abs(self.next_off_diagonal * self._eigen[2]))

    def truncated(self, steps: int) -> Tridiagonal:
        """The same run as it stood after fewer steps."""
        if steps >= self.diagonal.shape[0]:
            return self
        return Tridiagonal(
            diagonal=self.diagonal[:steps],
            off_diagonal=self.off_diagonal[: steps - 1],
            next_off_diagonal=float(self.off_diagonal[steps - 1]),
            exhausted=False,
            basis=None if self.basis is None else self.basis[:, :steps],
        )
