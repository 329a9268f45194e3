"""How a batch's inputs are handed to a model: one tensor, several arguments, or a container."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn


def arguments(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments, as far as the signature of ``forward`` leaves no doubt.

    A mapping's entries are arguments by name, and a tuple's by position, unless ``forward`` takes
    one argument only, which is then the mapping or tuple itself.

    >>> arguments(nn.Bilinear(2, 3, 4), ("left", "right"))
    (('left', 'right'), {})

    Raises
    ------
    TypeError
        If a tuple might be one argument or several.
    """
    if isinstance(inputs, Mapping):
        named = dict(inputs)
        if _binds(model, (), named) or not _binds(model, (inputs,), {}):
            return (), named
        return (inputs,), {}
    if not isinstance(inputs, tuple):
        return (inputs,), {}
    several, one = _binds(model, inputs, {}), _binds(model, (inputs,), {})
    if several and one and len(inputs) > 1:
        raise TypeError(
            f"expected inputs that {type(model).__name__}.forward takes in one way, but "
            f"{len(inputs)} may be as many arguments or one tuple; give them by name, "
            "{'x1': x1, 'x2': x2, 'labels': y}"
        )
    return ((inputs,), {}) if one and not several else (inputs, {})


def _binds(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # no signature to be had
        return True
    return True
