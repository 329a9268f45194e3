"""What is raised where derivatives are not there or wrong, and where another process failed."""

import builtins
from collections.abc import Mapping
from typing import Any


class WrongDerivative(ArithmeticError):
    """A rule of PyTorch, or of the user, gives something else than difference quotients do."""


class NoSecondDerivative(RuntimeError):
    """There is no right second derivative; products with J = ∂(logits)/∂θ work all the same."""


class WrongSecondDerivative(NoSecondDerivative, WrongDerivative):
    """Second derivatives can be computed, and every way to compute them is wrong."""


class RankFailed(RuntimeError):
    """Another process of the group died, ended or raised; this one cannot go on without it."""


def in_words(error: Exception) -> dict[str, Any]:
    """An error as JSON: its text, and the names of its class and of that one's bases."""
    return {"error": [kind.__name__ for kind in type(error).__mro__], "words": str(error)}


def from_words(told: Mapping[str, Any]) -> Exception:
    """The error of another process, of the nearest class that is known here.

    >>> from_words(in_words(NoSecondDerivative("expected a second derivative")))
    NoSecondDerivative('expected a second derivative')
    """
    own = {kind.__name__: kind for kind in (WrongDerivative, NoSecondDerivative, RankFailed)}
    own["WrongSecondDerivative"] = WrongSecondDerivative
    for name in told["error"]:
        kind = own.get(name) or getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(told["words"])
    return RuntimeError(told["words"])
