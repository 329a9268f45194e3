"""Mean gradients as Jᵀ of columns of logit space, each column touching one class's samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.class_structure.cells import Cells
from deepspec.class_structure.rows import SoftmaxDirections

# Below this share of the largest singular value, unit columns depend on each other.
DEPENDENT = 1e-12


@dataclass(frozen=True, eq=False)
class ClassBlock:
    """The columns of one class, (n_c C, r_c), as basis @ mixing.

    The basis is orthonormal and has only as many columns, k ≤ r_c, as are independent: under
    the weights of Papyan (2020) Σ_c' w_{c,c'} g_{c,c'} = 0, which saves one backward pass of C.
    """

    samples: Int[Tensor, " n_c"]
    members: Int[Tensor, " r_c"]
    basis: Float[Tensor, "n_c C k"]
    mixing: Float[Tensor, "k r_c"]

    @property
    def rank(self) -> int:
        """k."""
        return self.basis.shape[2]


@dataclass(frozen=True, eq=False)
class MeanColumns:
    """M = JᵀL: mean k is Σ_c' mix[k, c'] g_{classes[k], c'}, of the samples of one class.

    g_{c,c'} is the mean of the vectors of ``directions`` over class c, with the shares of
    ``cells``. Calling it applies L.
    """

    directions: SoftmaxDirections
    cells: Cells
    classes: Int[Tensor, " r"]
    mix: Float[Tensor, "r C"]

    def __call__(self, amounts: Float[Tensor, "r k"]) -> Float[Tensor, "n C k"]:
        """L a, so that Jᵀ of it is the combination of means with these amounts."""
        size = len(self.cells.weights)
        cells = amounts.new_zeros(size, size, amounts.shape[1])
        cells.index_add_(0, self.classes, self.mix[:, :, None] * amounts[:, None, :])
        spread = self.cells.share[:, :, None] * cells[self.cells.labels]
        return self.directions.coefficients(spread)

    def transpose(self, pushed: Float[Tensor, "n C k"]) -> Float[Tensor, "r k"]:
        """Lᵀ u: every mean's inner product with v, from u = J v."""
        values = self.cells.share[:, :, None] * self.directions.differences(pushed)
        cells = values.new_zeros(*self.cells.weights.shape, values.shape[2])
        cells.index_add_(0, self.cells.labels, values)
        return (self.mix[:, :, None] * cells[self.classes]).sum(dim=1)

    def blocks(self) -> Iterator[ClassBlock]:
        """L, one class after the other."""
        for label in self.classes.unique().tolist():
            samples = (self.cells.labels == label).nonzero()[:, 0]
            members = (self.classes == label).nonzero()[:, 0]
            directions = SoftmaxDirections(
                self.directions.probabilities[samples], self.directions.scale[samples]
            )
            amounts = self.cells.share[samples][:, :, None] * self.mix[members].T
            columns = directions.coefficients(amounts)
            basis, mixing = independent(columns.flatten(0, 1))
            yield ClassBlock(samples, members, basis.view(*columns.shape[:2], -1), mixing)


def independent(
    columns: Float[Tensor, "m r"],
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "k r"]]:
    """Orthonormal B and S with B S = columns, dependent directions left out.

    The rank is decided on columns of unit length, so that a mean of tiny length counts.
    """
    lengths = columns.norm(dim=0)
    unit = columns / torch.where(lengths > 0, lengths, 1.0)
    left, singular, right = torch.linalg.svd(unit, full_matrices=False)
    keep = singular > DEPENDENT * singular.amax()
    return left[:, keep], singular[keep, None] * right[keep] * lengths
