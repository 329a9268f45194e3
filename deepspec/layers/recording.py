"""What layers see and what errors reach them, recorded from the outside by forward hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepspec.classifier.logit_function import LogitFunction
from deepspec.layers.formula import LayerFormula


@dataclass(frozen=True)
class Layer:
    """A module by its name in the model, and the formula for its parameters.

    Attributes
    ----------
    name, module
        Whose calls are recorded.
    formula
        For what it computes.
    parameters
        Names in θ of the formula's "weight" and "bias", of those that θ has.
    """

    name: str
    module: nn.Module
    formula: LayerFormula
    parameters: dict[str, str]

    def tensor_name(self, part: str) -> str:
        """What the model calls its "weight" or "bias", whether or not θ has that."""
        if part in self.parameters:
            return self.parameters[part]
        prefix = next(iter(self.parameters.values())).rpartition(".")[0]
        return f"{prefix}.{part}" if prefix else part

    @property
    def names(self) -> tuple[str, ...]:
        """Its tensors in θ."""
        return tuple(self.parameters.values())


@dataclass
class Calls:
    """The calls of hooked modules during one forward pass: inputs, and a zero added to outputs."""

    observed: dict[nn.Module, list[Tensor]] = field(default_factory=dict)
    probes: dict[nn.Module, list[Tensor]] = field(default_factory=dict)


@contextmanager
def hooked(formulas: Mapping[nn.Module, LayerFormula]) -> Iterator[Calls]:
    """Note every call of the modules inside; the hooks are gone afterwards, whatever happens."""
    calls = Calls()

    def note(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        inputs = args[0] if args else kwargs["input"]
        # Added, not captured: an activation may overwrite the output itself, in place.
        probe = torch.zeros_like(output).requires_grad_()
        calls.observed.setdefault(module, []).append(formulas[module].observe(module, inputs))
        calls.probes.setdefault(module, []).append(probe)
        return output + probe

    handles = []
    try:
        for module in formulas:
            handles.append(module.register_forward_hook(note, with_kwargs=True))
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def record(
    function: LogitFunction, layers: list[Layer]
) -> list[tuple[Tensor, Float[Tensor, "b C ..."]]]:
    """Each layer's observed input and δ = ∂(logits)/∂(its output): C backward passes.

    No gradient of a parameter is computed on the way.
    """
    with hooked({layer.module: layer.formula for layer in layers}) as calls:
        with torch.enable_grad():
            logits = function(function.parameters)
        probes = [calls.probes[layer.module][0] for layer in layers]
        classes = logits.shape[1]
        deltas = [probe.new_empty(len(probe), classes, *probe.shape[1:]) for probe in probes]
        for index, column in enumerate(logits.unbind(1)):
            rows = torch.autograd.grad(
                column.sum(), probes, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            for delta, row in zip(deltas, rows, strict=True):
                delta[:, index] = row
    observed = [calls.observed[layer.module][0] for layer in layers]
    return list(zip(observed, deltas, strict=True))
