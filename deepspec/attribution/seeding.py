"""One seed, many independent streams: each named by what it is drawn for."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def stream(seed: int, purpose: str, draw: int = 0) -> torch.Generator:
    """The generator of one draw for one purpose; others are independent of it.

    >>> a, b = stream(0, "labels", 1), stream(0, "labels", 2)
    >>> bool(torch.rand(1, generator=a) == torch.rand(1, generator=b))
    False
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), draw))
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
