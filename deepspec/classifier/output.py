"""Where the logits are in what a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from deepspec.arguments import shown
from deepspec.classifier.failures import raised

Where = str | int | Callable[[Any], Tensor] | None


def require_where(where: object) -> None:
    """Refuse what says nothing about where logits are.

    Raises
    ------
    TypeError
        If it is no key, index or function.
    """
    known = where is None or isinstance(where, str | int) or callable(where)
    if not known or isinstance(where, bool):
        raise TypeError(
            "expected logits= as a key, an index or a function of the model's output, got "
            f"{shown(where)}; for example logits=0 or logits=lambda output: output['scores']"
        )


def logits_of(output: Any, where: Where) -> Any:
    """The logits of an output: as told, or itself, or its entry of that name.

    >>> logits_of({"scores": 3}, "scores"), logits_of((3, 4), 1), logits_of(3, lambda x: x + 1)
    (3, 4, 4)

    Raises
    ------
    ValueError
        If there are none where they were said to be.
    """
    if where is None:
        if isinstance(output, Mapping):
            return output.get("logits", output)
        return getattr(output, "logits", output)
    if callable(where):
        try:
            return where(output)
        # What PyTorch does not do here it may do otherwise; the caller knows how.
        except (RuntimeError, NotImplementedError):
            raise
        except Exception as error:
            raise ValueError(
                f"expected logits= to find the logits in {kind_of(output)}, but it raised "
                f"{raised(error)}"
            ) from error
    try:
        if isinstance(where, str) and not isinstance(output, Mapping):
            return getattr(output, where)
        return output[where]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"expected the logits at {shown(where)} of the model's output, got {kind_of(output)}; "
            "pass another logits="
        ) from error


def kind_of(output: Any) -> str:
    """What an output is, with what is in it.

    >>> kind_of(({"a": 1}, None))
    'a tuple of (a dict with the keys a, a NoneType)'
    """
    kind = type(output).__name__
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a {kind} with the keys {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"a {kind} of ({', '.join(map(kind_of, output))})"
    return f"a {kind}"
