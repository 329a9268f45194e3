"""One diagonal block of G and what stands in for it: what is needed to say how near they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.gram import nonzero
from deepspec.layerwise.by_class import ClassKronecker
from deepspec.layerwise.layer import Layer
from deepspec.layerwise.one_product import diagonal_of_curvature
from deepspec.layerwise.sides import (
    Batches,
    gradients_of,
    one_position,
    weighted_errors,
    with_ones,
)
from deepspec.operators import KroneckerBasis, KroneckerProduct

Curvature = KroneckerProduct | ClassKronecker | KroneckerBasis

#: Each approximation by its name, as the layer's method makes it.
APPROXIMATIONS: dict[str, Callable[[Layer, bool], Curvature]] = {
    "kfac": Layer.kfac,
    "cfac": Layer.cfac,
    "ekfac": Layer.ekfac,
    "kfoc": Layer.kfoc,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A matrix K on a layer's parameters, by what its nearness to G^l depends on.

    Attributes
    ----------
    values
        Its largest eigenvalues, descending, float64.
    vectors
        Of the largest of these, on the layer's θ.
    squared_norm
        ‖K‖² (Frobenius).
    inner
        ⟨K, G^l⟩.
    trace
        tr K.
    """

    values: Float[Tensor, " q"]
    vectors: Float[Tensor, "p r"]
    squared_norm: float
    inner: float
    trace: float


def exact_block(array: ClassArray, count: int, vectors: int) -> Block:
    """G^l itself (or G), from the Gram matrix of its rows; no matrix of p rows is formed."""
    values, left = array.gram.eigenpairs
    values = values.double()
    kept = nonzero(values, array.rows.dtype)[:vectors]
    # v = Dᵀ q / √λ, q an eigenvector of S = D Dᵀ.
    found = array.rows.rmatmul(left[:, : len(kept)].to(array.rows.dtype)).double()
    norm = float(values.square().sum())
    return Block(
        values=nonzero(values, array.rows.dtype)[:count],
        vectors=found / kept.sqrt(),
        squared_norm=norm,
        inner=norm,
        trace=float(values.sum()),
    )


def approximate_block(layer: Layer, K: Curvature, count: int, vectors: int) -> Block:
    """An approximation on the layer's weight (out, in), or with its bias on (out, in + 1)."""
    bias = K.columns > layer.width_in
    largest = K.eigenvalues(min(count, K.size))
    found = K.eigenpairs(min(vectors, K.size))[1]
    size = layer.own.size
    in_theta = torch.zeros(size, found.shape[1], dtype=torch.float64, device=K.device)
    in_theta[matrix_places(layer, bias)] = found.double()
    return Block(
        values=largest,
        vectors=in_theta,
        squared_norm=K.squared_norm(),
        inner=inner_with_curvature(layer.batches, K, bias=bias),
        trace=K.trace(),
    )


def inner_with_curvature(batches: Batches, K: Curvature, *, bias: bool) -> float:
    """⟨G^l, K⟩ = Σ w gᵀK g: one pass, and no G^l; no g either on layers of one position."""
    if isinstance(K, KroneckerBasis):
        diagonal = diagonal_of_curvature(batches, K.left, K.right, bias=bias)
        return float((diagonal * K.values).sum())
    total = 0.0
    for batch in batches():
        errors, inputs = weighted_errors(batch), with_ones(batch.inputs, bias)
        if one_position(batch):
            for left, right in K.terms:
                of_errors = left.forms(errors[:, :, 0]).double().sum(dim=1)
                total += float(of_errors @ right.forms(inputs[:, 0]).double())
        else:
            for g in gradients_of(errors, inputs):
                columns = g.flatten(2).flatten(0, 1).T
                total += float(((K @ columns) * columns).double().sum())
    return total


def matrix_places(layer: Layer, bias: bool) -> Int[Tensor, " p"]:
    """Where each entry of the (out, in) weight, row by row, stands in the layer's θ.

    With ``bias`` of (out, in + 1), whose last column is the bias.
    """
    space = layer.own.space
    places = space.unflatten(torch.arange(space.size, device=layer.problem.device))
    # As attention's in_proj_weight is named, too.
    named = {name.endswith("bias"): part for name, part in places.items()}
    matrix = layer.as_matrix(named[False])
    columns = [matrix, named[True][:, None]] if bias else [matrix]
    return torch.cat(columns, dim=1).flatten()


def in_whole(layer: Layer, columns: Float[Tensor, "p k"]) -> Float[Tensor, "q k"]:
    """The rows of vectors on all of θ that are a layer's, in its order."""
    space = layer.problem.space
    places = space.unflatten(torch.arange(space.size, device=columns.device))
    return columns[torch.cat([places[name].flatten() for name in layer.parameter_names])]


def merged(blocks: Sequence[Block], count: int) -> tuple[Float[Tensor, " q"], Int[Tensor, " q"]]:
    """The largest eigenvalues of a block-diagonal, and which block each belongs to."""
    owners = torch.cat([torch.full((len(b.values),), place) for place, b in enumerate(blocks)])
    values, order = torch.cat([b.values.cpu() for b in blocks]).sort(descending=True, stable=True)
    return values[:count], owners[order[:count]]
