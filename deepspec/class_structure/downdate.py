"""What a knockout leaves, in the coordinates of S's eigenvectors: a diagonal less a few columns.

With S = U Λ Uᵀ and a part P = E Eᵀ of rank r, DᵀE is Λ^½UᵀE =: M in an orthonormal basis of the
range of Dᵀ, and there

* V − V_P, by subtraction, is Λ − M Mᵀ;
* V ⊘ V_P, by projection, has the eigenvalues of Λ − F Fᵀ, F = UᵀY (EᵀY)^{+½}, Y = S E: what the
  Schur complement takes (:meth:`Gram.lost_with`), turned.

Everything that is asked of a knockout follows from Λ and r columns: S itself is not needed again,
a product costs r numbers a row, and how many eigenvalues lie above x is an r × r question.
"""

from __future__ import annotations

from typing import Literal

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.gram import Gram, descending
from deepspec.operators import SymmetricOperator

How = Literal["subtraction", "projection"]
# Of the largest eigenvalue: below that a direction has no scatter.
NO_SCATTER = 1e-9
SMALL, POWERS = 1500, 60


class Downdate(SymmetricOperator):
    """Λ − F Fᵀ, positive semidefinite, in float64.

    Parameters
    ----------
    values
        Λ's diagonal, descending, at least 0.
    factor
        F.

    >>> values = torch.tensor([3.0, 1.0], dtype=torch.float64)
    >>> left = Downdate(values, torch.tensor([[1.0], [0.0]]).double())
    >>> left.eigenvalues(), left.count_above(1.5)
    (tensor([2., 1.], dtype=torch.float64), 1)
    """

    def __init__(self, values: Float[Tensor, " s"], factor: Float[Tensor, "s r"]) -> None:
        super().__init__(len(values), torch.float64, values.device)
        self.values, self.factor = values, factor

    def describe(self) -> str:
        return f"diagonal less {self.factor.shape[1]} columns"

    def _product(self, columns: Float[Tensor, "s k"]) -> Float[Tensor, "s k"]:
        return self.values[:, None] * columns - self.factor @ (self.factor.T @ columns)

    def dense(self) -> Float[Tensor, "s s"]:
        """The matrix itself."""
        found = -(self.factor @ self.factor.T)
        found.diagonal().add_(self.values)
        return found

    def eigenvalues(self) -> Float[Tensor, " s"]:
        """All of them, descending."""
        return descending(self.dense())

    def count_above(self, level: float) -> int:
        """How many eigenvalues are larger, by inertia.

        In(Λ − x − F Fᵀ) + In(I) = In(Λ − x) + In(I − Fᵀ(Λ − x)⁻¹F) (Haynsworth 1968): so many as
        of Λ, less the negative eigenvalues of the last. The level must be none of Λ's own.
        """
        inner = self.factor.T @ (self.factor / (self.values - level)[:, None])
        core = torch.eye(len(inner)).to(inner) - (inner + inner.T) / 2
        lost = int((torch.linalg.eigvalsh(core) < 0).sum()) if len(core) else 0
        return int((self.values > level).sum()) - lost

    def null_vectors(self) -> Float[Tensor, "s j"]:
        """Eigenvectors of eigenvalues below 1e-9 of the largest; of a large matrix these alone."""
        matrix = self.dense()
        if len(matrix) <= SMALL or matrix.device.type != "cpu":
            squares, turn = torch.linalg.eigh(matrix)
            return turn[:, squares <= NO_SCATTER * squares[-1:].abs()]
        level = NO_SCATTER * self._largest()
        found = scipy.linalg.eigh(
            matrix.numpy(), subset_by_value=(-float("inf"), level), driver="evr"
        )
        return torch.from_numpy(found[1])

    def _largest(self) -> float:
        """About the largest eigenvalue, by the power method: never more than it."""
        vector = torch.ones(self.size, 1).to(self.values)
        for _ in range(POWERS):
            vector = self @ (vector / vector.norm().clamp_min(1e-300))
        return float(vector.norm())


def knocked_out(gram: Gram, basis: Float[Tensor, "m r"], how: How = "subtraction") -> Downdate:
    """What is left of V without the part that has this basis."""
    values, vectors = gram.eigenpairs
    if how == "projection":
        return Downdate(values, vectors.T @ gram.lost_with(basis))
    return Downdate(values, values.sqrt()[:, None] * (vectors.T @ basis.double()))


def means_beyond_within(gram: Gram, basis: Float[Tensor, "m r"]) -> Float[Tensor, " r"]:
    """The eigenvalues of V ⊘ V_within: what of the means no scatter within classes spans.

    With E spanning the cell means and Λ − M Mᵀ what is left without them, the scatter, those of
    MᵀN NᵀM, N a basis of where there is no scatter. Zero as soon as it spans all there is.
    """
    values, vectors = gram.eigenpairs
    kept = values > 1e-12 * values[:1]
    means = values[kept].sqrt()[:, None] * (vectors[:, kept].T @ basis.double())
    beyond = means.T @ Downdate(values[kept], means).null_vectors()
    return descending(beyond @ beyond.T).clamp_min(0.0)
