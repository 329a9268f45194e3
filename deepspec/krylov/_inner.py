"""Inner products of long vectors, accumulated in float64 without a float64 copy of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def pieces(vector: Tensor) -> Iterator[slice]:
    """Slices that together cover a vector, small enough to stay in a cache."""
    length = 1 << (16 if vector.device.type == "cpu" else 22)
    for begin in range(0, vector.shape[0], length):
        yield slice(begin, begin + length)


def inner(left: Tensor, right: Tensor) -> float:
    """⟨left, right⟩, each piece widened to float64 before it is multiplied.

    The error is that of float64 arithmetic, about 1e-16 ‖left‖ ‖right‖, whatever the dtype.

    >>> inner(torch.full((3,), 2.0), torch.ones(3))
    6.0
    """
    parts = [torch.dot(left[piece].double(), right[piece].double()) for piece in pieces(left)]
    return float(torch.stack(parts).sum())


def subtract_then_inner(target: Tensor, factor: float, other: Tensor, right: Tensor) -> float:
    """target ← target − factor · other, then ⟨target, right⟩, in one sweep through memory."""
    parts = []
    for piece in pieces(target):
        part = target[piece]
        if factor:
            part.sub_(other[piece], alpha=factor)
        wide = part.double()
        parts.append(torch.dot(wide, wide if right is target else right[piece].double()))
    return float(torch.stack(parts).sum())
