"""What each layer sees and what errors reach it, sample by sample, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.softmax import mean_minus_each
from deepspec.layers.recording import Layer as LayerWithFormula
from deepspec.layers.recording import record
from deepspec.memory import storage_bytes
from deepspec.problem import Problem

Shared = Literal["expand", "reduce"]
Mask = str | Callable[[Any], Tensor] | None
# What one batch's arranged inputs and errors may take; never less than one sample's.
PIECE_BYTES = 2**27


class Replicates(NamedTuple):
    """Vectors with weights and labels: Σ weights v vᵀ is the second moment they stand for."""

    vectors: Float[Tensor, "m ..."]
    weights: Float[Tensor, "m ..."]
    labels: Int[Tensor, " m"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerBatch:
    """Some samples of one layer: inputs h_{i,t} and errors δ_{i,c',t} at positions t.

    A sample's gradient g_{i,c'} by the layer's weight is Σ_t δ_{i,c',t} h_{i,t}ᵀ (Papyan 2020,
    eq. 7.1–7.4); a layer on plain vectors has one position. With the layer's output z,
    δ_{i,c',t} = ∂ℓ(f_i, e_c')/∂z_t.

    Attributes
    ----------
    rows
        Which of the problem's samples.
    inputs
        Without the 1 that a bias is the weight of.
    errors
        By cross-class.
    weights
        w_{i,c'} = p_{i,c'}/n, float64.
    labels
        Class of each sample.
    counted
        False at padding, which is in no second moment.
    num_samples
        n, of the whole problem.
    """

    rows: slice
    inputs: Float[Tensor, "b t i"]
    errors: Float[Tensor, "b C t o"]
    weights: Float[Tensor, "b C"]
    labels: Int[Tensor, " b"]
    counted: Bool[Tensor, "b t"]
    num_samples: int

    def feature_rows(self, shared: Shared) -> Replicates:
        """Inputs as rows of H: each position with 1/(nT), or the mean over positions with 1/n.

        "expand" and "reduce" of Eschenhagen et al. (2023), for positions that share the weight.
        T is the number of positions of that sample that count.
        """
        lengths = self.counted.sum(dim=1)
        if shared == "reduce":
            kept = torch.where(self.counted[:, :, None], self.inputs, 0.0).double()
            mean = kept.sum(dim=1) / lengths.clamp_min(1)[:, None]
            weights = (lengths > 0).double() / self.num_samples
            return Replicates(mean.to(self.inputs.dtype), weights, self.labels)
        sample, position = self.counted.nonzero(as_tuple=True)
        weights = 1.0 / (self.num_samples * lengths.double())[sample]
        return Replicates(self.inputs[sample, position], weights, self.labels[sample])

    def error_rows(self, shared: Shared) -> Replicates:
        """Errors as rows of Δ, each with p_{i,c'}/n: every position's, or their sum."""
        if shared == "reduce":
            kept = torch.where(self.counted[:, None, :, None], self.errors, 0.0)
            return Replicates(kept.sum(dim=2), self.weights, self.labels)
        sample, position = self.counted.nonzero(as_tuple=True)
        found = self.errors.transpose(1, 2)[sample, position]
        return Replicates(found, self.weights[sample], self.labels[sample])

    def samples(self, shared: Shared) -> Int[Tensor, " m"]:
        """The number of the sample that each of these rows is of."""
        samples = torch.arange(self.rows.start, self.rows.stop, device=self.labels.device)
        return samples if shared == "reduce" else samples[self.counted.nonzero(as_tuple=True)[0]]


class Recorded(NamedTuple):
    """What a layer saw of some samples, as its formula remembers it, and ∂(logits)/∂(output)."""

    rows: slice
    observed: Tensor
    deltas: Float[Tensor, "b C ..."]
    mask: Bool[Tensor, "b t"] | None


class Records:
    """The records of all layers: taken once where they fit the memory budget, else again.

    Parameters
    ----------
    problem
        The net and its data.
    layers
        In the order of use; a pass over the data takes as many neighbours as fit.
    mask
        Which positions count: the name of a (b, t) tensor among the inputs, true or 1 where one
        does, or a function of the batch's inputs that returns it. By default "attention_mask",
        where the inputs are a mapping that has one.
    """

    def __init__(self, problem: Problem, layers: list[LayerWithFormula], mask: Mask = None) -> None:
        self.problem, self.layers, self.mask = problem, layers, mask
        self._held: dict[int, list[Recorded]] = {}
        _, function = next(problem.functions())
        few = function.head(3)  # as many as the layers were looked at with
        taken = record(few, layers)
        self._bytes = [storage_bytes(pair) // few.samples for pair in taken]
        #: (inputs, outputs, positions) of each layer, on the first samples.
        self.widths = [_widths(layer, *pair) for layer, pair in zip(layers, taken, strict=True)]

    def batches(self, place: int) -> Iterator[LayerBatch]:
        """One layer's inputs and errors, some samples at a time, in the order of the data."""
        i, o, t = self.widths[place]
        one = t * (i + 3 * self.problem.num_classes * o) * 8
        most = max(1, PIECE_BYTES // one)
        for rows, observed, deltas, mask in self._recorded(place, most):
            for start in range(rows.start, rows.stop, most):
                part = slice(start, min(start + most, rows.stop))
                few = slice(part.start - rows.start, part.stop - rows.start)
                kept = None if mask is None else mask[few]
                yield self._batch(place, Recorded(part, observed[few], deltas[few], kept))

    def _recorded(self, place: int, most: int) -> Iterator[Recorded]:
        if place not in self._held:
            together = self._neighbours(place)
            if not together:
                for rows, function in self.problem.functions(most):
                    yield self._record(function, rows, [place])[0]
                return
            held: dict[int, list[Recorded]] = {other: [] for other in together}
            self._held = {}
            for rows, function in self.problem.functions(self._at_once(together)):
                for other, found in zip(
                    together, self._record(function, rows, together), strict=True
                ):
                    held[other].append(found)
            self._held = held
        yield from self._held[place]

    def _neighbours(self, place: int) -> list[int]:
        """The layer and those after it whose records fit the budget together."""
        room = self.problem.engine.cache.budget_bytes()
        chosen: list[int] = []
        for other in range(place, len(self.layers)):
            room -= self._bytes[other] * self.problem.num_samples
            if room < 0:
                break
            chosen.append(other)
        return chosen

    def _at_once(self, places: list[int]) -> int:
        return max(1, 4 * PIECE_BYTES // sum(self._bytes[place] for place in places))

    def _record(self, function: LogitFunction, rows: slice, places: list[int]) -> list[Recorded]:
        mask = mask_of(function, self.mask)
        taken = record(function, [self.layers[place] for place in places])
        return [Recorded(rows, observed, deltas, mask) for observed, deltas in taken]

    def _batch(self, place: int, found: Recorded) -> LayerBatch:
        formula, problem = self.layers[place].formula, self.problem
        inputs = formula.arrange(found.observed).transpose(1, 2).flatten(2)
        logits = formula.errors(found.deltas).transpose(2, 3).flatten(3)
        probabilities = problem.probabilities[found.rows]
        # Differences of two logits' derivatives round once, so that this precision is enough.
        likely = probabilities.to(problem.dtype)
        errors = mean_minus_each(likely, logits.flatten(2)).view(logits.shape)
        padding = formula.padding(found.observed)
        counted = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        if padding is not None:
            counted = ~padding
        if found.mask is not None and found.mask.shape == counted.shape:
            counted = counted & found.mask
        return LayerBatch(
            rows=found.rows,
            inputs=inputs,
            errors=errors,
            weights=probabilities / problem.num_samples,
            labels=problem.labels[found.rows],
            counted=counted,
            num_samples=problem.num_samples,
        )


def mask_of(function: LogitFunction, mask: Mask) -> Bool[Tensor, "b t"] | None:
    """Which positions of a batch's sequences count; ``None`` if all do.

    Raises
    ------
    ValueError
        If there is no such input, or it is not of shape (b, t).
    """
    inputs = function.inputs
    if mask is None:
        if not isinstance(inputs, Mapping) or "attention_mask" not in inputs:
            return None
        found: object = inputs["attention_mask"]
        if not isinstance(found, Tensor) or found.ndim != 2:
            return None  # as some models have one for each pair of positions
    elif isinstance(mask, str):
        if not isinstance(inputs, Mapping) or mask not in inputs:
            names = ", ".join(map(str, inputs)) if isinstance(inputs, Mapping) else "no names"
            raise ValueError(
                f"expected an input named {mask!r} as the mask, but the inputs have {names}; pass "
                "a function of the inputs instead"
            )
        found = inputs[mask]
    else:
        found = mask(inputs)
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != function.samples:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"expected a mask of shape ({function.samples}, positions), true where a position "
            f"counts, got {got}"
        )
    return found.to(function.parameters[function.space.names[0]].device) != 0


def _widths(
    layer: LayerWithFormula, observed: Tensor, deltas: Float[Tensor, "b C ..."]
) -> tuple[int, int, int]:
    _, g, t, i = layer.formula.arrange(observed).shape
    return g * i, g * layer.formula.errors(deltas).shape[-1], t
