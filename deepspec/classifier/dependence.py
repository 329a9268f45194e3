"""Do the logits depend on every tensor of θ, and by every way they do in training?

What was cut off by a table cached in eval mode, by weights merged into others, or by ``no_grad``
would be missing from every spectrum, and no product could show it.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.loose_state import Slot, as_it_was, loose_tensors
from deepspec.memory import graph_nodes

CUT = "a table cached in eval mode, weights merged into others (LoRA), no_grad or detach"
REFRESH = "call model.train() before making the problem, or clear the cache"


def require_dependence(functions: Iterable[LogitFunction], precision: torch.dtype) -> None:
    """Look at the graph of each batch's logits, until every tensor of θ was reached.

    Raises
    ------
    ValueError
        If a tensor is cut off in eval mode and not in training mode, or a tensor that the model
        keeps is made of parameters.

    Warns
    -----
    RuntimeWarning
        If the logits do not depend on some tensor of θ in any batch.
    """
    first: LogitFunction | None = None
    missing: set[str] = set()
    for function in functions:
        if first is None:
            first = function
            missing = unreached(function.head(min(2, function.samples)))
        if not missing:
            break
        missing &= unreached(function)
    if first is None:
        return
    kept = loose_tensors(first.model)
    outside = [slot for slot in kept if isinstance(slot.tensor, nn.Parameter)]
    if outside:
        warnings.warn(
            f"{len(outside)} parameters in {outside[0].name} are no part of θ, for the model has "
            "not registered them and no optimizer was given them; keep modules in nn.ModuleList "
            "and parameters in nn.ParameterList",
            RuntimeWarning,
            stacklevel=4,
        )
    names = [name for name in first.space.names if name in missing]
    if names:
        _require_missing_in_training(first, names)
    if kept:
        tolerance = torch.finfo(precision).eps ** 0.5
        _require_fresh(first.head(min(2, first.samples)), kept, tolerance)
    if names:
        merged = [n for n, m in first.model.named_modules() if getattr(m, "merged", 0) is True]
        hint = f" ({merged[0] or 'the model'} says that it is merged)" if merged else ""
        warnings.warn(
            f"the logits do not depend on {_listed(names)}: zero rows in every matrix. If they "
            f"should, {CUT} may have cut it off{hint}; else leave it out with select=",
            RuntimeWarning,
            stacklevel=4,
        )


def unreached(function: LogitFunction) -> set[str]:
    """The tensors of θ that are not in the graph of the logits."""
    leaves = function.leaves()
    names = {id(leaf): name for name, leaf in leaves.items()}
    with torch.enable_grad():
        output = function(leaves)
    found = {id(output)} | {id(getattr(n, "variable", None)) for n in graph_nodes(output)}
    return {name for key, name in names.items() if key not in found}


def _require_missing_in_training(function: LogitFunction, missing: list[str]) -> None:
    fresh = _renewed(function, training=True)
    try:
        still = unreached(fresh) if fresh is not None else set(missing)
    except Exception:  # any model may fail in training mode on two samples; that tells nothing
        return
    back = [name for name in missing if name not in still]
    if back:
        raise ValueError(
            f"expected logits that depend on every parameter, but on {_listed(back)} they do in "
            f"training mode and not in eval mode: {CUT} may have cut it off; {REFRESH}, or leave "
            "it out of θ with select=lambda name, parameter: ..."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _require_fresh(function: LogitFunction, kept: list[Slot], tolerance: float) -> None:
    """No tensor that the model keeps may be made of parameters.

    At other parameters, a model without its memory then gives other logits than with it.
    """
    moved = _moved(function)
    with torch.no_grad():
        here, there = function(function.parameters).double(), function(moved).double()
    tolerance *= max(1.0, float(here.abs().max()))

    def differ(left: Tensor, right: Tensor) -> bool:
        return left.shape != right.shape or float((left - right).abs().max()) > tolerance

    fresh = _renewed(function, training=False)
    if fresh is not None:
        with torch.no_grad():
            try:
                at_home, away = (fresh(p).double() for p in (function.parameters, moved))
            except Exception:  # what cannot be run tells nothing
                at_home, away = here, there
        if differ(at_home, here) or differ(away, there):
            _refuse([slot.name for slot in kept])
    for slots in ([kept] if len(kept) > 1 else []) + [[slot] for slot in kept[:20]]:
        with torch.no_grad():
            try:
                at_home, away = (_without(slots, function, p) for p in (function.parameters, moved))
            except Exception:  # it is no cache, for the model cannot do without
                continue
        if not differ(at_home, here) and differ(away, there):
            _refuse([slot.name for slot in slots])


def _refuse(owners: list[str]) -> None:
    raise ValueError(
        "expected logits that depend on the parameters alone, but a tensor kept in "
        f"{', '.join(dict.fromkeys(owners))} was made of parameters earlier and stands for them "
        f"now, as caches of eval mode do; {REFRESH}"
    )


def _without(slots: list[Slot], function: LogitFunction, parameters: dict[str, Tensor]) -> Tensor:
    """The logits once the slots are empty; everything is put back."""
    with as_it_was(function.model, {**function.constants, **function.parameters}):
        for slot in slots:
            if isinstance(slot.holder, dict) and slot.key in slot.holder:
                owner = _with_attributes(function.model, slot.holder)
                if owner is None or isinstance(
                    getattr(type(owner), str(slot.key), None), functools.cached_property
                ):
                    del slot.holder[slot.key]
                else:
                    slot.holder[slot.key] = None
        return function(parameters).double()


def _with_attributes(model: nn.Module, holder: object) -> nn.Module | None:
    return next((module for module in model.modules() if vars(module) is holder), None)


def _moved(function: LogitFunction) -> dict[str, Tensor]:
    """Other parameters, by a percent or so."""
    generator = torch.Generator().manual_seed(0)
    moved = {}
    for name, tensor in function.parameters.items():
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        size = float(tensor.detach().abs().mean()) or 1.0
        moved[name] = tensor.detach() + 0.03 * size * noise.to(tensor.device)
    return moved


def _renewed(function: LogitFunction, training: bool) -> LogitFunction | None:
    """The function of a copy of the model that forgot, by ``train()``, what eval mode kept."""
    few = function.head(min(2, function.samples))
    tensors = {**few.constants, **few.parameters}
    try:
        with as_it_was(few.model, tensors):
            model = copy.deepcopy(few.model)
        model.train()
        if not training:
            model.eval()
    except Exception:  # what a user's model holds or does may not be copied
        return None
    renewed = copy.copy(few)
    renewed.model, renewed.training = model, training
    return renewed
