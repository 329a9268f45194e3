"""KFOC: the single Kronecker product that is nearest to a layer's Gauss-Newton block."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov import NotConverged, top_eigenpairs
from deepspec.layerwise.one_product import kfac
from deepspec.layerwise.records import Shared
from deepspec.layerwise.sides import (
    Batches,
    gradients_of,
    one_position,
    weighted_errors,
    with_ones,
)
from deepspec.operators import KroneckerProduct, SymmetricOperator
from deepspec.seeds import Seed


class RearrangedSquare(SymmetricOperator):
    """RᵀR or R Rᵀ, of the rearrangement R(G^l) (out² × in²) in which B ⊗ A has rank one.

    R sends A to Σ w g A gᵀ and Rᵀ sends B to Σ w gᵀ B g: no gradient is kept, and neither G^l nor
    R is formed. A product is two passes over the data. It acts on the smaller of the two sides.
    """

    def __init__(self, batches: Batches, like: KroneckerProduct, *, bias: bool) -> None:
        self.batches, self.bias = batches, bias
        self.on_errors = like.rows < like.columns
        self.side = min(like.rows, like.columns)
        super().__init__(self.side**2, like.dtype, like.device)

    def describe(self) -> str:
        return "square of the rearranged curvature"

    def to_errors(self, right: Float[Tensor, "k i i"]) -> Float[Tensor, "k o o"]:
        """Σ w g A gᵀ for each A."""
        total: Tensor | None = None
        for batch in self.batches():
            errors, inputs = weighted_errors(batch), with_ones(batch.inputs, self.bias)
            if one_position(batch):
                seen, arrived = inputs[:, 0], errors[:, :, 0]
                # Σ_i (h_iᵀ A h_i) Σ_c' w δ δᵀ
                forms = torch.stack([((seen @ A) * seen).sum(dim=1) for A in right])
                scaled = forms[:, :, None, None] * arrived
                found = scaled.flatten(1, 2).mT @ arrived.flatten(0, 1)
                total = found if total is None else total + found
            else:
                for g in gradients_of(errors, inputs):
                    rows = g.flatten(0, 1).transpose(0, 1)  # (o, m, i)
                    flat = rows.flatten(1)
                    found = torch.stack([(rows @ A).flatten(1) @ flat.T for A in right])
                    total = found if total is None else total + found
        assert total is not None  # KFAC came before and refuses no batches
        return total

    def to_inputs(self, left: Float[Tensor, "k o o"]) -> Float[Tensor, "k i i"]:
        """Σ w gᵀ B g for each B."""
        total: Tensor | None = None
        for batch in self.batches():
            errors, inputs = weighted_errors(batch), with_ones(batch.inputs, self.bias)
            if one_position(batch):
                seen, arrived = inputs[:, 0], errors[:, :, 0]
                forms = torch.stack([((arrived @ B) * arrived).sum(dim=(1, 2)) for B in left])
                found = (forms[:, :, None] * seen).mT @ seen
                total = found if total is None else total + found
            else:
                for g in gradients_of(errors, inputs):
                    columns = g.flatten(0, 1)  # (m, o, i)
                    flat = columns.flatten(0, 1)
                    found = torch.stack([flat.T @ (B @ columns).flatten(0, 1) for B in left])
                    total = found if total is None else total + found
        assert total is not None
        return total

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        matrices = columns.T.reshape(-1, self.side, self.side)
        if self.on_errors:
            image = self.to_errors(self.to_inputs(matrices))
        else:
            image = self.to_inputs(self.to_errors(matrices))
        return image.flatten(1).T


def kfoc(
    batches: Batches,
    shared: Shared = "expand",
    *,
    bias: bool = False,
    tolerance: float = 1e-8,
    seed: Seed = 0,
) -> KroneckerProduct:
    """The B ⊗ A nearest to G^l in Frobenius norm: the top singular pair of its rearrangement.

    Van Loan and Pitsianis (1993); Schnaus et al. (2021). ‖G^l − B ⊗ A‖² = ‖G^l‖² − σ², σ the
    singular value, which is ‖B ⊗ A‖. Both factors are positive semidefinite, as G^l is.

    Parameters
    ----------
    batches, bias
        As in :func:`~deepspec.layerwise.one_product.kfac`.
    shared
        Of the KFAC that the search starts from; the result does not depend on it.
    tolerance
        Of the residual of the singular pair; two passes over the data for each product that it
        takes, about 20.
    seed
        Of the search for a second copy of σ.
    """
    start = kfac(batches, shared, bias=bias)
    square = RearrangedSquare(batches, start, bias=bias)
    guess = (start.left if square.on_errors else start.right).dense().flatten()[:, None]
    try:
        pairs = top_eigenpairs(square, 1, tol=tolerance, start=guess, seed=seed)
    except NotConverged as error:
        pairs = error.pairs
    found = pairs.vectors[:, 0].view(square.side, square.side)
    # The vector's sign is arbitrary; a positive semidefinite matrix has a positive trace.
    found = (found + found.T) / 2 * torch.sign(found.trace())
    if square.on_errors:
        left, right = found, square.to_inputs(found[None])[0]
    else:
        left, right = square.to_errors(found[None])[0], found
    return KroneckerProduct((left + left.T) / 2, (right + right.T) / 2)
