"""What a ``seed`` may be, everywhere in the library: a whole number, or a generator to draw one."""

from __future__ import annotations

from numbers import Integral

import torch

from deepspec.arguments import shown

Seed = int | torch.Generator


def whole_seed(seed: Seed) -> int:
    """The one number that all randomness of a call follows from.

    A generator gives its next one, so that two calls with it differ, and the same calls with a
    generator of the same seed agree. Below 2³¹, which every library's own generators take.

    >>> whole_seed(3)
    3
    >>> one, two = (torch.Generator().manual_seed(5) for _ in range(2))
    >>> whole_seed(one) == whole_seed(two), whole_seed(one) == whole_seed(7)
    (True, False)

    Raises
    ------
    TypeError
        If it is neither a whole number nor a ``torch.Generator``.
    ValueError
        If it is negative.
    """
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**31, (), generator=seed, device=seed.device))
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(
            f"expected a seed as an integer or a torch.Generator, got {shown(seed)}; NumPy's "
            "generators give one by int(rng.integers(2**31))"
        )
    if seed < 0:
        raise ValueError(f"expected a seed of at least 0, got {shown(seed)}")
    return int(seed)
