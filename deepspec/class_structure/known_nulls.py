"""What is known to be zero before anything is computed: one null direction of S a sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class OffKnownNulls:
    """An isometry Q from R^(m−n) into R^m whose range is all but one direction a sample.

    Of gradients Σ_c' p_{i,c'} g_{i,c'} = 0, so the rows √w_{i,c'} g_{i,c'} of sample i, taken with
    the unit vector u_i = √p_i, add up to zero: n of the nC eigenvalues of S vanish, and the others
    are those of QᵀS Q. Q is the reflection of each sample's coordinates that takes u_i to −e_1
    (Householder, of no cancellation as u_i ≥ 0), less that coordinate.

    >>> Q = OffKnownNulls.of(torch.tensor([[0.6, 0.8]], dtype=torch.float64))
    >>> columns = torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64).T
    >>> Q.coordinates(columns).numpy().round(9) + 0.0
    array([[ 0., -1.]])
    """

    reflectors: Float[Tensor, "n K"]

    @classmethod
    def of(cls, nulls: Float[Tensor, "n K"]) -> OffKnownNulls:
        """Off u_i ≥ 0 of length 1, one for each sample."""
        normals = nulls.double().clone()
        normals[:, 0] += 1.0
        return cls(normals / normals.norm(dim=1, keepdim=True))

    def coordinates(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m-n k"]:
        """Qᵀx, float64."""
        shaped = columns.double().reshape(*self.reflectors.shape, -1)
        return self._reflected(shaped)[:, 1:].flatten(0, 1)

    def expand(self, columns: Float[Tensor, "m-n k"]) -> Float[Tensor, "m k"]:
        """Q x, float64."""
        samples, size = self.reflectors.shape
        shaped = columns.double().reshape(samples, size - 1, -1)
        return self._reflected(torch.nn.functional.pad(shaped, (0, 0, 1, 0))).flatten(0, 1)

    def _reflected(self, shaped: Float[Tensor, "n K k"]) -> Float[Tensor, "n K k"]:
        along = torch.einsum("ij,ijk->ik", self.reflectors, shaped)
        return torch.addcmul(shaped, self.reflectors[:, :, None], along[:, None], value=-2.0)
