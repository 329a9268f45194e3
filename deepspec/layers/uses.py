"""Which layers a formula describes: called once, sample by sample, with parameters of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from deepspec.classifier.logit_function import LogitFunction
from deepspec.layers.affine import LinearFormula
from deepspec.layers.attention import attention_of
from deepspec.layers.formulas import layer_formula
from deepspec.layers.recording import Calls, Layer, hooked
from deepspec.memory import graph_nodes


@dataclass(frozen=True, kw_only=True, eq=False)
class LayersOfNet:
    """The layers that a formula describes, in the order they are used, and why others are not.

    Attributes
    ----------
    layers
        In the order of their calls.
    left_out
        By module name, for every other module with parameters of its own in θ: the reason.
    """

    layers: list[Layer]
    left_out: dict[str, str]


def layers_with_formula(function: LogitFunction) -> list[Layer]:
    """Layers that are called once, and whose parameters are used there and nowhere else.

    Where a sample has several rows (tokens, pixels) there are none: an error δ then belongs to a
    row, and what layers see to a sample of several.
    """
    return layers_of(function).layers if function.has_one_row_a_sample else []


def layers_of(function: LogitFunction) -> LayersOfNet:
    """Every module with parameters in θ: with a formula for them, or with the reason why not.

    A parameter's uses are the edges that lead to it in the graph of the logits, so a weight
    that is tied, shared, or read by a function elsewhere in the model is noticed.
    """
    few = function.head(min(3, function.samples))
    candidates, left_out = _candidates(function)
    leaves = few.leaves()
    with hooked(candidates.values()) as calls, torch.enable_grad():
        logits = few(leaves)
    uses = _uses(logits, leaves)
    # A first dimension that is as long as the batch by chance keeps its length in another one.
    fewer = _calls_of_fewer(few, candidates.values())
    found = {}
    for module, layer in candidates.items():
        reason = _unfit(layer, calls, fewer, few.samples, uses)
        if reason:
            left_out[layer.name] = reason
        else:
            found[module] = layer
    return LayersOfNet(
        layers=[found[module] for module in calls.observed if module in found], left_out=left_out
    )


def _candidates(function: LogitFunction) -> tuple[dict[nn.Module, Layer], dict[str, str]]:
    """Modules whose parameters in θ have a formula; of the others, why they have none."""
    dtype = next(iter(function.parameters.values())).dtype
    blocks = attention_of(function.model)
    found: dict[nn.Module, Layer] = {}
    without: dict[str, str] = {}
    for prefix, module in function.model.named_modules():
        path = f"{prefix}." if prefix else ""
        own = [name for name, _ in module.named_parameters(recurse=False)]
        names = {name: f"{path}{name}" for name in own if f"{path}{name}" in function.space.names}
        if module in blocks:
            projection = Layer(prefix, module, LinearFormula(False, False), {}, blocks[module])
            if blocks[module] is module:
                names, projection = _input_projection(names, projection, path)
            else:
                names, projection = {}, _linear(projection, names)
            if projection.parameters:
                found[module] = projection
        if not names:
            continue
        kind = type(module).__name__
        if not set(names) <= {"weight", "bias"}:
            without[prefix] = f"{kind} has no formula for its parameters {', '.join(names)}"
            continue
        formula = layer_formula(module, "weight" in names, "bias" in names, dtype)
        if formula is None:
            without[prefix] = f"{kind} (as it is configured) has no formula"
        else:
            found[module] = Layer(prefix, module, formula, names)
    return found, without


def _input_projection(
    names: dict[str, str], layer: Layer, path: str
) -> tuple[dict[str, str], Layer]:
    """What is left of a block's own parameters, and its input projection as a layer."""
    taken = {"weight": "in_proj_weight", "bias": "in_proj_bias"}
    parameters = {part: names[name] for part, name in taken.items() if name in names}
    rest = {name: value for name, value in names.items() if name not in taken.values()}
    return rest, replace(_linear(layer, parameters), name=f"{path}in_proj")


def _linear(layer: Layer, parameters: dict[str, str]) -> Layer:
    formula = LinearFormula("weight" in parameters, "bias" in parameters)
    return replace(layer, formula=formula, parameters=parameters)


def _unfit(
    layer: Layer, calls: Calls, fewer: Calls | None, samples: int, uses: Mapping[str, int]
) -> str:
    """Why a layer's formula does not hold in this net; empty where it does."""
    made = len(calls.probes.get(layer.module, ()))
    if made == 0 and layer.block is not None:
        return "it projects queries and keys of different inputs, which is no one linear map"
    if made == 0:
        return "it is not called (its weight, if used at all, is read by a function elsewhere)"
    if made > 1:
        return f"it is used {made} times in one forward pass"
    often = [name for name in layer.names if uses[name] > 1]
    if often:
        return f"its {' and '.join(often)} is used {uses[often[0]]} times, tied or read elsewhere"
    if any(uses[name] == 0 for name in layer.names):
        return "the logits do not depend on its parameters"
    observed, probe = calls.observed[layer.module][0], calls.probes[layer.module][0]
    by_sample = len(probe) == len(observed) == samples
    if by_sample and fewer is not None:
        by_sample = _first_dimension(fewer, layer.module) == samples - 1
    return "" if by_sample else "the first dimension of its input and output is not the sample"


def _calls_of_fewer(function: LogitFunction, layers: Iterable[Layer]) -> Calls | None:
    """The calls on one sample fewer; ``None`` for one sample, to which everything belongs."""
    if function.samples == 1:
        return None
    with hooked(layers) as calls, torch.no_grad():
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
