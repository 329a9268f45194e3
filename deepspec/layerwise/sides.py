"""The two sides of a layer's curvature, as weighted rows: inputs, errors, and what they make.

With h_{i,t} and δ_{i,c',t} of :class:`LayerBatch` a sample's gradient by the weight is
g_{i,c'} = Σ_t δ_{i,c',t} h_{i,t}ᵀ, and G^l = Σ w_{i,c'} vec(g) vec(g)ᵀ (Papyan 2020, §7). A bias is
the weight of one more input that is always 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.layerwise.records import LayerBatch, Shared
from deepspec.memory import free_memory

#: A pass over the data, fresh at each call.
Batches = Callable[[], Iterable[LayerBatch]]

# Numbers in the gradients that are formed at a time, where positions share the weight.
NUMBERS_AT_ONCE = 2**24


def with_ones(inputs: Float[Tensor, "... i"], bias: bool) -> Float[Tensor, "... j"]:
    """The inputs, with a 1 appended where there is a bias.

    >>> with_ones(torch.tensor([[5.0, 7.0]]), True)
    tensor([[5., 7., 1.]])
    """
    if not bias:
        return inputs
    return torch.cat([inputs, inputs.new_ones(*inputs.shape[:-1], 1)], dim=-1)


def input_rows(
    batch: LayerBatch, shared: Shared, bias: bool
) -> tuple[Float[Tensor, "m i"], Int[Tensor, " m"]]:
    """√w h with labels: rows of which H is the sum of outer products."""
    vectors, weights, labels = batch.feature_rows(shared)
    return with_ones(vectors, bias) * weights.sqrt().to(vectors.dtype)[:, None], labels


def error_rows(batch: LayerBatch, shared: Shared) -> tuple[Float[Tensor, "m o"], Int[Tensor, " m"]]:
    """√w δ with labels, over samples, positions and cross-classes: Δ's rows."""
    vectors, weights, labels = batch.error_rows(shared)
    rows = vectors * weights.sqrt().to(vectors.dtype)[:, :, None]
    return rows.flatten(0, 1), labels.repeat_interleave(rows.shape[1])


def weighted_errors(batch: LayerBatch) -> Float[Tensor, "b C t o"]:
    """√w δ, at every position: what the exact G^l is made of."""
    return batch.errors * batch.weights.sqrt().to(batch.errors.dtype)[:, :, None, None]


def one_position(batch: LayerBatch) -> bool:
    """Whether every gradient is one outer product, so that none need be formed."""
    return batch.inputs.shape[1] == 1


def gradients_of(
    errors: Float[Tensor, "b C t o"], inputs: Float[Tensor, "b t i"]
) -> Iterator[Float[Tensor, "f C o i"]]:
    """Σ_t δ_t h_tᵀ for each sample and cross-class, a few samples at a time."""
    one = errors.shape[1] * errors.shape[3] * inputs.shape[2]
    few = max(1, NUMBERS_AT_ONCE // one)
    for deltas, seen in zip(errors.split(few), inputs.split(few), strict=True):
        yield deltas.transpose(2, 3) @ seen[:, None]


def require_room(batch: LayerBatch, classes: int) -> None:
    """Raise MemoryError, with the width that would fit, where one pair of factors a class does not.

    A factor of few samples is held by its rows; how many a class has is taken to be n/C.
    """
    _, C, t, o = batch.errors.shape
    i = batch.inputs.shape[2] + 1
    samples = -(-batch.num_samples // classes) * t
    numbers = classes * (o * min(o, samples * C) + i * min(i, samples))
    needed, free = numbers * batch.inputs.element_size(), free_memory(batch.inputs.device)
    if needed > free:
        width = int((free / (2 * classes * batch.inputs.element_size())) ** 0.5)
        raise MemoryError(
            f"expected {needed / 1e9:.3g} GB for {classes} pairs of factors of {o:,} and {i:,} "
            f"rows, {free / 1e9:.3g} GB are free; a width of {width:,} would fit"
        )
