"""What one layer adds to Θ: from its stored inputs and errors, or from its Jacobian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepspec.layers.formula import LayerFormula
from deepspec.layers.recording import Layer
from deepspec.neural_tangent_kernel.accumulation import add_outer, add_pairs

# An elementwise operation on one entry costs about as much as this many multiply-adds.
ELEMENTWISE = 8


@dataclass(frozen=True)
class LayerSize:
    """n samples of C logits; g groups of t positions with k inputs and o outputs each."""

    n: int
    C: int
    g: int
    t: int
    k: int
    o: int
    observed: int

    @property
    def pair_cost(self) -> int:
        """Multiply-adds of (H Hᵀ) ∘ (δ δᵀ) summed over positions."""
        pairs = (self.n * self.t) ** 2 // 2
        return self.g * pairs * (self.k + self.C**2 * (self.o + ELEMENTWISE))

    @property
    def jacobian_cost(self) -> int:
        """Multiply-adds of forming J and of J Jᵀ."""
        rows = self.n * self.C
        return self.g * self.k * self.o * (rows * self.t + rows**2 // 2)

    @property
    def stored(self) -> int:
        """Numbers to keep for :class:`StoredLayer`."""
        compact = self.observed if self.jacobian_cost < self.pair_cost else self.g * self.t * self.k
        return self.n * (compact + self.C * self.g * self.t * self.o)

    @property
    def errors(self) -> int:
        """Numbers in one sample's errors and arranged inputs."""
        return self.g * self.t * (self.C * self.o + self.k) + self.observed


def layer_size(
    formula: LayerFormula, observed: Tensor, deltas: Float[Tensor, "b C ..."], samples: int
) -> LayerSize:
    """The size for all samples, from what some of them look like."""
    features = formula.features(observed)
    _, C, g, t, o = formula.errors(deltas).shape
    numbers = observed.numel() // len(observed)
    return LayerSize(samples, C, g, t, features.shape[3], o, numbers)


class Share(ABC):
    """Takes the records of a layer, batch by batch, and adds what they make to Θ."""

    def __init__(self, layer: Layer, size: LayerSize) -> None:
        self.layer, self.size = layer, size

    @abstractmethod
    def take(self, rows: slice, observed: Tensor, deltas: Float[Tensor, "b C ..."]) -> None:
        """One batch's record."""

    @abstractmethod
    def add_to(self, theta: Float[Tensor, "nC nC"], block: int, mine: Sequence[slice]) -> None:
        """Add to Θ, below the diagonal, in some blocks of samples.

        At most about ``block`` numbers more are held at a time.
        """

    @property
    @abstractmethod
    def numbers(self) -> int:
        """How many numbers it will hold."""


class StoredLayer(Share):
    """Keeps inputs and errors of all samples, and multiplies them the cheaper way."""

    def __init__(self, layer: Layer, size: LayerSize) -> None:
        super().__init__(layer, size)
        self._in_pairs = size.pair_cost <= size.jacobian_cost
        self._taken: list[tuple[int, Tensor, Tensor]] = []

    @property
    def numbers(self) -> int:
        return self.size.stored

    def take(self, rows: slice, observed: Tensor, deltas: Float[Tensor, "b C ..."]) -> None:
        formula = self.layer.formula
        inputs = formula.compact(observed) if self._in_pairs else observed
        self._taken.append((rows.start, inputs, formula.errors(deltas)))

    def add_to(self, theta: Float[Tensor, "nC nC"], block: int, mine: Sequence[slice]) -> None:
        self._taken.sort(key=itemgetter(0))  # several processes' come in turns
        if self._in_pairs:
            inputs = _joined([x for _, x, _ in self._taken], 2)
            errors = _joined([e for _, _, e in self._taken], 3)
            add_pairs(theta, self.layer.formula, inputs, errors, mine)
            return
        for groups, units in jacobian_slices(self.size, block):
            sliced = StreamedJacobian(self.layer, self.size, groups, units)
            for start, x, errors in self._taken:
                sliced.fill(slice(start, start + len(x)), x, errors)
            sliced.add_to(theta, block, mine)


class StreamedJacobian(Share):
    """Keeps some columns of the layer's Jacobian, and not what they came from."""

    def __init__(self, layer: Layer, size: LayerSize, groups: slice, units: slice) -> None:
        super().__init__(layer, size)
        self.groups, self.units = groups, units
        self._columns: Tensor | None = None

    @property
    def numbers(self) -> int:
        width = (self.groups.stop - self.groups.start) * (self.units.stop - self.units.start)
        return self.size.n * self.size.C * width * self.size.k

    def take(self, rows: slice, observed: Tensor, deltas: Float[Tensor, "b C ..."]) -> None:
        self.fill(rows, observed, self.layer.formula.errors(deltas))

    def fill(self, rows: slice, observed: Tensor, errors: Float[Tensor, "b C g t o"]) -> None:
        """Put the columns of some samples, from errors already arranged, in their place."""
        features = self.layer.formula.features(observed)
        part = _jacobian(features, errors, self.groups, self.units)
        C = self.size.C
        if self._columns is None:
            self._columns = part.new_empty(self.size.n * C, part.shape[1])
        self._columns[rows.start * C : rows.stop * C] = part

    def add_to(self, theta: Float[Tensor, "nC nC"], block: int, mine: Sequence[slice]) -> None:
        if self._columns is not None:
            add_outer(theta, self._columns, mine, self.size.C)


def shares_of(layer: Layer, size: LayerSize, block: int) -> list[Share]:
    """How to get one layer's contribution with at most about ``block`` numbers at a time."""
    jacobian = size.n * size.C * size.g * size.k * size.o
    if size.stored <= block and (size.pair_cost <= size.jacobian_cost or jacobian > block):
        return [StoredLayer(layer, size)]
    return [
        StreamedJacobian(layer, size, groups, units)
        for groups, units in jacobian_slices(size, block)
    ]


def jacobian_slices(size: LayerSize, block: int) -> Iterator[tuple[slice, slice]]:
    """Groups and outputs whose columns of J are about ``block`` numbers; one of each at least."""
    per_unit = size.n * size.C * size.k
    units = min(size.o, max(1, block // per_unit))
    groups = min(size.g, max(1, block // (per_unit * size.o)))
    for group in range(0, size.g, groups):
        for unit in range(0, size.o, units):
            yield (
                slice(group, min(group + groups, size.g)),
                slice(unit, min(unit + units, size.o)),
            )


def _jacobian(
    features: Float[Tensor, "b g t k"],
    errors: Float[Tensor, "b C g t o"],
    groups: slice,
    units: slice,
) -> Float[Tensor, "bC s"]:
    """Σ_t δ_{c,t} x_tᵀ for every sample and logit, flat."""
    e, x = errors[:, :, groups, :, units], features[:, groups]
    b, C, g, t, o = e.shape
    left = e.permute(0, 2, 1, 4, 3).reshape(b, g, C * o, t)
    product = (left @ x).view(b, g, C, o, -1)
    return product.transpose(1, 2).reshape(b * C, -1)


def _joined(parts: list[Tensor], dimension: int) -> Tensor:
    """All batches in one; shorter sequences get positions that count nothing."""
    longest = max(part.shape[dimension] for part in parts)
    after = [0] * (2 * (parts[0].ndim - dimension - 1))
    padded = [F.pad(part, (*after, 0, longest - part.shape[dimension])) for part in parts]
    return torch.cat(padded)
