"""Paired timings: in each round every contender runs once, so that drift hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender, and its time in units of the reference, round by round."""

    seconds: tuple[float, ...]
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the paired ratios."""
        return statistics.median(self.ratios)

    @property
    def best(self) -> float:
        """The ratio of the two fastest times."""
        return min(self.seconds) / min(
            s / r for s, r in zip(self.seconds, self.ratios, strict=True)
        )


def paired(
    contenders: Mapping[str, Callable[[], object]], reference: str, rounds: int = 9
) -> dict[str, Timing]:
    """Time all contenders in turn, ``rounds`` times after two rounds of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + 2):
            for name, work in contenders.items():
                took = once(work)
                if turn >= 2:
                    seconds[name].append(took)
    finally:
        gc.enable()
    base = seconds[reference]
    return {
        name: Timing(tuple(own), tuple(a / b for a, b in zip(own, base, strict=True)))
        for name, own in seconds.items()
    }


def once(work: Callable[[], object]) -> float:
    """Seconds of one call, the device's queue included."""
    _synchronise()
    start = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
