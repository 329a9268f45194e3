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
from deepspec.layers.formulas import layer_formula
from deepspec.memory import graph_nodes


@dataclass(frozen=True)
class Layer:
    """A module, the formula for its parameters, and their names in θ."""

    module: nn.Module
    formula: LayerFormula
    names: tuple[str, ...]


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


def layers_with_formula(function: LogitFunction) -> list[Layer]:
    """Layers that are called once, and whose parameters are used there and nowhere else.

    A parameter's uses are the edges that lead to it in the graph of the logits, so a weight
    that is tied, shared, or read by a function elsewhere in the model is noticed. Where a sample
    has several rows (tokens, pixels) there are none: an error δ then belongs to a row, and what
    layers see to a sample of several.
    """
    if not function.has_one_row_a_sample:
        return []
    few = function.head(min(3, function.samples))
    dtype = next(iter(function.parameters.values())).dtype
    candidates = {}
    for prefix, module in function.model.named_modules():
        path = f"{prefix}." if prefix else ""
        own = [name for name, _ in module.named_parameters(recurse=False)]
        names = {name: f"{path}{name}" for name in own if f"{path}{name}" in function.space.names}
        if names and set(names) <= {"weight", "bias"}:
            formula = layer_formula(module, "weight" in names, "bias" in names, dtype)
            if formula is not None:
                candidates[module] = Layer(module, formula, tuple(names.values()))
    leaves = few.leaves()
    formulas = {module: layer.formula for module, layer in candidates.items()}
    with hooked(formulas) as calls, torch.enable_grad():
        logits = few(leaves)
    uses = _uses(logits, leaves)
    # A first dimension that is as long as the batch by chance keeps its length in another one.
    fewer = _calls_of_fewer(few, formulas)
    return [
        layer
        for module, layer in candidates.items()
        if len(calls.probes.get(module, ())) == 1
        and len(calls.probes[module][0]) == len(calls.observed[module][0]) == few.samples
        and (fewer is None or _first_dimension(fewer, module) == few.samples - 1)
        and all(uses[name] == 1 for name in layer.names)
    ]


def _calls_of_fewer(
    function: LogitFunction, formulas: Mapping[nn.Module, LayerFormula]
) -> Calls | None:
    """The calls on one sample fewer; ``None`` for one sample, to which everything belongs."""
    if function.samples == 1:
        return None
    with hooked(formulas) as calls, torch.no_grad():
        try:
            function.head(function.samples - 1)(function.parameters)
        except (RuntimeError, IndexError, ValueError):
            return Calls()  # a net that cannot do with fewer: none of its layers is certain
    return calls


def _first_dimension(calls: Calls, module: nn.Module) -> int | None:
    """The length of the first dimension of a module's one call, inputs and outputs alike."""
    found = {len(t) for t in (*calls.probes.get(module, ()), *calls.observed.get(module, ()))}
    return found.pop() if len(found) == 1 else None


def _uses(output: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, int]:
    """How many edges of the graph of ``output`` lead to each leaf."""
    names = {id(leaf): name for name, leaf in leaves.items()}
    uses = dict.fromkeys(leaves, 0)
    for node in graph_nodes(output):
        for parent, _ in node.next_functions:
            variable = getattr(parent, "variable", None)
            if id(variable) in names:
                uses[names[id(variable)]] += 1
    return uses
