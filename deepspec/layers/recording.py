"""What layers see and what errors reach them, recorded from the outside by forward hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepspec.classifier.logit_function import LogitFunction
from deepspec.layers.attention import projections_noted
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
    block
        The attention whose projection it is, which uses its weight as a tensor.
    """

    name: str
    module: nn.Module
    formula: LayerFormula
    parameters: dict[str, str]
    block: nn.MultiheadAttention | None = None

    def tensor_name(self, part: str) -> str:
        """What the model calls its "weight" or "bias", whether or not θ has that."""
        if part in self.parameters:
            return self.parameters[part]
        if self.block is self.module:
            return next(iter(self.parameters.values())).rpartition("_")[0] + f"_{part}"
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
def hooked(layers: Iterable[Layer]) -> Iterator[Calls]:
    """Note every call of the modules inside; the hooks are gone afterwards, whatever happens."""
    calls = Calls()
    by_module = {layer.module: layer for layer in layers}
    blocks = {m: layer.block for m, layer in by_module.items() if layer.block is not None}

    def note(module: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
        # Added, not captured: an activation may overwrite the output itself, in place.
        probe = torch.zeros_like(output).requires_grad_()
        seen = by_module[module].formula.observe(module, inputs)
        calls.observed.setdefault(module, []).append(seen)
        calls.probes.setdefault(module, []).append(probe)
        return output + probe

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        return note(module, args[0] if args else kwargs["input"], output)

    handles = []
    try:
        for module in by_module:
            if module not in blocks:
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
        with projections_noted(blocks, note):
            yield calls
    finally:
        for handle in handles:
            handle.remove()


def record(
    function: LogitFunction, layers: list[Layer]
) -> list[tuple[Tensor, Float[Tensor, "b C ..."]]]:
    """Each layer's observed input and δ = ∂(logits)/∂(its output): C backward passes.

    No gradient of a parameter is computed on the way.

    Raises
    ------
    ValueError
        If a layer is not called once.
    """
    with hooked(layers) as calls:
        with torch.enable_grad():
            logits = function(function.parameters)
        for layer in layers:
            made = len(calls.probes.get(layer.module, ()))
            if made != 1:
                raise ValueError(
                    f"expected {layer.name} to be called once in every batch, as in the first one, "
                    f"but it is called {made} times in {function.place}: the way through the net "
                    "depends on the data; select= can leave such a layer out of θ"
                )
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
