"""Inner products of long vectors, accumulated in float64 without a float64 copy of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Of a vector that a sweep of Gram and Schmidt leaves so much of, it leaves no more than rounding
# on what was swept (Daniel, Gragg, Kaufman and Stewart, 1976); else once more, and no third time
# is needed ("twice is enough") but where the vector was rounding itself.
ENOUGH_LEFT, MOST_PASSES = 0.7, 3


def enough_left(after: float, before: float) -> bool:
    """Whether a sweep need not be repeated.

    >>> enough_left(0.9, 1.0), enough_left(1e-3, 1.0)
    (True, False)
    """
    return after >= ENOUGH_LEFT * before


def pieces(vector: Tensor) -> Iterator[slice]:
    """Slices that together cover a vector, small enough to stay in a cache."""
    length = 1 << (16 if vector.device.type == "cpu" else 22)
    for begin in range(0, vector.shape[0], length):
        yield slice(begin, begin + length)


class _Widener:
    """Pieces of a vector in float64, in one buffer that is used again and again.

    A fresh buffer for each piece would leave the allocator's heap in pieces as well.
    """

    def __init__(self, vector: Tensor) -> None:
        first = next(pieces(vector), slice(0, 0))
        length = min(first.stop, vector.shape[0])
        self._buffer = vector.new_empty(length, dtype=torch.float64)

    def __call__(self, piece: Tensor) -> Tensor:
        if piece.dtype == torch.float64:
            return piece
        return self._buffer[: piece.shape[0]].copy_(piece)


def inner(left: Tensor, right: Tensor) -> float:
    """⟨left, right⟩, each piece widened to float64 before it is multiplied.

    The error is that of float64 arithmetic, about 1e-16 ‖left‖ ‖right‖, whatever the dtype.

    >>> inner(torch.full((3,), 2.0), torch.ones(3))
    6.0
    """
    wide_left, wide_right = _Widener(left), _Widener(right)
    parts = [torch.dot(wide_left(left[p]), wide_right(right[p])) for p in pieces(left)]
    return float(torch.stack(parts).sum())


def subtract_then_inner(target: Tensor, factor: float, other: Tensor, right: Tensor) -> float:
    """target ← target − factor · other, then ⟨target, right⟩, in one sweep through memory."""
    wide_target, wide_right = _Widener(target), _Widener(right)
    parts = []
    for piece in pieces(target):
        part = target[piece]
        if factor:
            part.sub_(other[piece], alpha=factor)
        wide = wide_target(part)
        parts.append(torch.dot(wide, wide if right is target else wide_right(right[piece])))
    return float(torch.stack(parts).sum())
