"""What a function asks of any argument, and how a refusal shows what came."""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Counts beyond it are slips of the pen, and would run for years.
MOST = 2**31 - 1


def shown(value: Any) -> str:
    """A value in a few words on one line, whatever its own ``repr`` is.

    >>> shown("a\\nb"), shown(np.zeros((2, 3))), shown(shown), shown(math.nan)
    ("'a\\\\nb'", 'an array of shape (2, 3), float64', 'a function', 'nan')
    """
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a tensor of shape {tuple(value.shape)}, {dtype}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    plain = (bool, int, float, complex, str, bytes, np.generic, list, tuple, dict, set)
    if value is None or isinstance(value, plain):
        try:
            words = " ".join(repr(value).split())
        except ValueError:  # a whole number of more digits than Python writes
            return "a whole number with thousands of digits"
        return words if len(words) <= 60 else words[:59] + "…"
    kind = type(value).__name__
    return f"a{'n' if kind[:1].lower() in 'aeiou' else ''} {kind}"


def is_one_of(value: Any, names: Collection[str]) -> bool:
    """Whether a value is one of some names; an array or a list is not, and no error either."""
    return isinstance(value, str) and value in names


def check_whole(value: Any, least: int, what: str) -> None:
    """Raise TypeError unless ``value`` is an integer, ValueError if it is out of range."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {what} as an integer, got {shown(value)}")
    value = int(value)
    if value < least:
        raise ValueError(f"expected {what} of at least {least}, got {shown(value)}")
    if value > MOST:
        raise ValueError(f"expected {what} of at most {MOST}, got {shown(value)}")


def check_above(value: Any, least: float, what: str) -> None:
    """Raise TypeError unless ``value`` is a number, ValueError unless least < ``value`` < ∞."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected {what} as a number, got {shown(value)}")
    if not least < value < math.inf:  # type: ignore[operator]
        raise ValueError(f"expected {what} above {least} and finite, got {shown(value)}")


def check_not_negative(value: Any, what: str) -> None:
    """Raise TypeError unless ``value`` is a number, ValueError unless 0 ≤ ``value`` < ∞."""
    if isinstance(value, bool) or not isinstance(value, Real) or value != 0:
        check_above(value, 0, what)


def as_path(value: Any, what: str) -> Path:
    """A path.

    Raises
    ------
    TypeError
        If it is no path and no text.
    """
    if isinstance(value, bytes) or not isinstance(value, str | os.PathLike):
        raise TypeError(f"expected {what} as a path, got {shown(value)}; give text or a Path")
    return Path(value)


def check_numbers(
    value: Any, shape: tuple[int | str, ...], what: str, *, whole: bool = False
) -> None:
    """Raise unless ``value`` is a dense, finite tensor of real numbers of this shape.

    Lengths given by a letter may be any.
    """
    expected = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
    kind = "integer" if whole else "real"
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        came = f"a {value.layout} tensor" if isinstance(value, Tensor) else shown(value)
        raise TypeError(f"expected {what} as a dense tensor {expected}, got {came}")
    real = not value.is_complex() and value.dtype != torch.bool
    if not real or (whole and value.is_floating_point()):
        raise TypeError(f"expected {what} of {kind} numbers, got {shown(value)}")
    pairs = zip(value.shape, shape, strict=False)
    if value.ndim != len(shape) or any(isinstance(n, int) and n != size for size, n in pairs):
        raise ValueError(f"expected {what} of shape {expected}, got {shown(value)}")
    if not whole and not bool(torch.isfinite(value).all()):
        raise ValueError(f"expected finite {what}, got NaN or infinity among them")
