"""Which modules of a net are layers, and why the others are none."""

from __future__ import annotations

from dataclasses import replace

import torch

from deepspec.classifier.logit_function import LogitFunction
from deepspec.layers.recording import record
from deepspec.layers.uses import LayersOfNet, layers_of
from deepspec.problem import Problem


def find_layers(problem: Problem) -> LayersOfNet:
    """The layers of a problem's net, each with a name, in the order they are used.

    Raises
    ------
    ValueError
        If there is none; says why of each module.
    """
    _, function = next(problem.functions())
    found = _believed(_without_tied(layers_of(function), function), function)
    # The model itself, where that is a layer, is called by its class.
    itself = type(function.model).__name__
    left_out = {name or itself: why for name, why in found.left_out.items()}
    if not found.layers:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ValueError(
            "expected a net with a layer that has a formula (Linear, Conv1d, Conv2d, Embedding, "
            f"projections of attention, normalisations), found none: {reasons}"
        )
    layers = [replace(layer, name=layer.name or itself) for layer in found.layers]
    return LayersOfNet(layers=layers, left_out=left_out)


def _without_tied(found: LayersOfNet, function: LogitFunction) -> LayersOfNet:
    """The same, with every module that holds a tied tensor left out, all of its names said.

    A tied weight's gradient is the sum over its uses, which is no Kronecker product of one
    layer's inputs and errors; counted at each use, G's blocks would not add up to G.
    """
    places: dict[int, list[str]] = {}
    for name, parameter in function.model.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    shared = [names for names in places.values() if len(names) > 1]
    tied = {name: names for names in shared if names[0] in function.space.names for name in names}
    out = dict(found.left_out)
    for name, names in tied.items():
        others = " and ".join(other for other in names if other != name)
        module, _, tensor = name.rpartition(".")
        if tensor.startswith("in_proj_"):  # an attention's input projection, by its own name
            module = f"{module}.in_proj" if module else "in_proj"
        out[module] = f"its {tensor} is tied to {others}"
    kept = [layer for layer in found.layers if layer.name not in out]
    return LayersOfNet(layers=kept, left_out=out)


def _believed(found: LayersOfNet, function: LogitFunction) -> LayersOfNet:
    """The same, without layers whose formula gives another gradient than autograd.

    A hook of the user's may change an output, say; features and errors would then be of something
    else than what the weight is multiplied with.
    """
    if not found.layers:
        return found
    few = function.head(min(3, function.samples))
    leaves = few.leaves()
    with torch.enable_grad():
        logits = few(leaves)
    towards = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype, device=logits.device)
    towards = towards.view_as(logits) + 0.5
    names = [name for layer in found.layers for name in layer.names]
    expected = dict(
        zip(
            names,
            torch.autograd.grad(
                logits, [leaves[name] for name in names], towards, materialize_grads=True
            ),
            strict=True,
        )
    )
    kept, out = [], dict(found.left_out)
    tolerance = 10 * torch.finfo(logits.dtype).eps ** 0.5
    for layer, (observed, deltas) in zip(found.layers, record(few, found.layers), strict=True):
        errors = torch.einsum("bc,bc...->b...", towards, deltas)[:, None]
        parts = layer.formula.vjp(observed, errors)
        wrong = [
            name
            for part, name in layer.parameters.items()
            if not _alike(parts[part].squeeze(0), expected[name], tolerance)
        ]
        if wrong:
            out[layer.name] = (
                f"its formula does not give the gradient by {' and '.join(wrong)} (is its output "
                "changed by a hook?)"
            )
        else:
            kept.append(layer)
    return LayersOfNet(layers=kept, left_out=out)


def _alike(left: torch.Tensor, right: torch.Tensor, tolerance: float) -> bool:
    return float((left - right).norm()) <= tolerance * float(right.norm())
