"""What a problem is made of, checked: each refusal says what was expected and what came."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from deepspec.arguments import shown
from deepspec.classifier.failures import raised
from deepspec.classifier.parameters import Patterns, selection_of


def as_memory_budget(budget: Any) -> int | float:
    """Bytes as an int, or a share of the free memory as a float in 0..1.

    Raises
    ------
    ValueError
        If it is neither.
    """
    share = isinstance(budget, float | np.floating)
    whole = isinstance(budget, int | np.integer) and not isinstance(budget, bool)
    if not (share or whole) or not 0 <= budget <= (1 if share else math.inf):
        raise ValueError(
            "expected memory_budget as bytes (int) or as a share of the free memory "
            f"(float in 0..1), got {shown(budget)}"
        )
    return float(budget) if share else int(budget)


def as_logit_memory(memory: Any) -> int:
    """Bytes for arrays of rows × classes.

    Raises
    ------
    ValueError
        If it is no whole number of at least 0.
    """
    whole = isinstance(memory, int | np.integer) and not isinstance(memory, bool)
    if not whole or memory < 0:
        raise ValueError(f"expected logit_memory as whole bytes of at least 0, got {memory!r}")
    return int(memory)


def as_num_classes(count: Any) -> int | None:
    """C, or None.

    Raises
    ------
    ValueError
        If it is no whole number of at least 1.
    """
    if count is None:
        return None
    try:
        found = operator.index(count)
    except TypeError:
        found = 0
    if found < 1 or isinstance(count, bool):
        raise ValueError(f"expected num_classes as an integer of at least 1, got {shown(count)}")
    return found


def as_model(model: Any) -> nn.Module:
    """The module to differentiate: of a compiled one, the one it was made from.

    Raises
    ------
    TypeError
        If it is no module, or one that was translated (TorchScript).

    Warns
    -----
    RuntimeWarning
        If the model, or a part of it, was compiled.
    """
    if not isinstance(model, nn.Module):
        instead = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"expected a torch.nn.Module, got {instead}; give a model that is built")
    compiled = [
        name or type(module).__name__
        for name, module in model.named_modules()
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
    ]
    if compiled:
        warnings.warn(
            f"torch.compile is by-passed for {', '.join(compiled[:3])}"
            + (f" and {len(compiled) - 3} more" if len(compiled) > 3 else "")
            + ": compiled graphs cannot be differentiated twice, so the model runs as it was "
            "before (_orig_mod)",
            RuntimeWarning,
            stacklevel=3,
        )
    while isinstance(getattr(model, "_orig_mod", None), nn.Module):
        model = model._orig_mod
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            "expected a model of Python code, got one of TorchScript, which is not stateless; give "
            "the module it was made from"
        )
    return model


def as_plan(plan: Any) -> dict[str, str | int]:
    """A plan, as :attr:`deepspec.Problem.plan` gave it.

    Raises
    ------
    TypeError
        If it is no mapping of names to choices.
    """
    if not isinstance(plan, Mapping) or not all(
        isinstance(name, str) and isinstance(choice, str | int) for name, choice in plan.items()
    ):
        raise TypeError(
            f"expected a plan, a dict of choices by name, got {shown(plan)}; take the plan of a "
            "problem with the same net and data"
        )
    return dict(plan)


def as_selection(select: Any) -> Callable[[str, nn.Parameter], bool] | None:
    """The function that says what θ contains, which then says so when it fails.

    Raises
    ------
    TypeError
        If it is no function; ValueError, later, with what it raised.
    """
    if select is None:
        return None
    if not callable(select) or isinstance(select, type):
        raise TypeError(
            f"expected select as a function of a name and a parameter, got {shown(select)}; for "
            "example select=lambda name, parameter: name.startswith('head')"
        )

    def selects(name: str, parameter: nn.Parameter) -> bool:
        try:
            return bool(select(name, parameter))
        except Exception as error:
            raise ValueError(
                f"expected select(name, parameter) to be true or false for {name!r}, but it raised "
                f"{raised(error)}"
            ) from error

    return selects


def chosen_parameters(
    model: nn.Module, select: Any, parameters: Patterns | None
) -> Callable[[str, nn.Parameter], bool] | None:
    """``select``, or what fits the patterns of names.

    Raises
    ------
    ValueError
        If both are given, or a pattern fits nothing that can be trained.
    """
    if parameters is None:
        return as_selection(select)
    if select is not None:
        raise ValueError("expected select or parameters, got both; leave one out")
    names = [name for name, tensor in model.named_parameters() if tensor.requires_grad]
    return selection_of(parameters, names)


def as_flag(name: str, value: Any) -> bool:
    """True or False.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"expected {name} as True or False, got {shown(value)}")
    return bool(value)
