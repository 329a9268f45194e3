"""Random number generators, left as the caller has them.

NumPy's global generator is the one that a user's Dataset draws from, so that one is meant here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def undisturbed(everywhere: bool = False) -> Iterator[None]:
    """Put PyTorch's global generators back afterwards; Python's and NumPy's too if asked.

    >>> before = torch.get_rng_state()
    >>> with undisturbed():
    ...     _ = torch.rand(3)
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    state = torch.get_rng_state()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    others = (random.getstate(), np.random.get_state()) if everywhere else None  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
        if others:
            random.setstate(others[0])
            np.random.set_state(others[1])  # noqa: NPY002


@contextmanager
def reseeded(seed: int) -> Iterator[None]:
    """Other random numbers than outside: what depends on them then shows it."""
    with undisturbed(everywhere=True):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield
