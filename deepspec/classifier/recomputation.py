"""Gradient checkpointing, done without: nothing is forgotten that derivatives would recompute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch.utils import checkpoint


class _Direct:
    """In place of the reentrant function, which has no forward mode and no second derivative."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _nothing_around(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In place of what surrounds the call where checkpointing is not reentrant."""
    yield


@contextmanager
def without_recomputation() -> Iterator[None]:
    """Inside, ``torch.utils.checkpoint`` runs the function it is given, and keeps everything.

    The same values with other memory; the caller's modules are not touched.
    """
    parts: dict[str, Any] = {
        "CheckpointFunction": _Direct,
        "_checkpoint_without_reentrant_generator": _nothing_around,
    }
    with ExitStack() as stack:
        for name, part in parts.items():
            if hasattr(checkpoint, name):
                stack.enter_context(patch.object(checkpoint, name, part))
        yield
