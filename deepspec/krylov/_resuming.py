"""What lets a run go on: the state it left, and products whose blocks do not depend on a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov._arguments import not_finite
from deepspec.krylov._lanczos import open_checkpoint
from deepspec.operators._contract import all_finite
from deepspec.operators.base import SymmetricOperator
from deepspec.storage.checkpoint import Checkpoint, finite, require

State = tuple[dict[str, Any], dict[str, Tensor]]

# A block shares the passes over data that is not held between products, and is what a stop loses.
COLUMNS_AT_ONCE = 8


def opened(
    path: str | Path | None,
    every: float,
    A: SymmetricOperator,
    estimator: str,
    settings: dict[str, Any],
) -> tuple[Checkpoint | None, State | None]:
    """The checkpoint of an estimator's run on A, if there is to be one, and the state in it."""
    if path is None:
        return None, None
    store = open_checkpoint(path, every, A, estimator, settings)
    return store, store.load()


class Images:
    """A times some columns, block after block; between two it can be written down.

    Where the blocks begin, and how the images lie in memory, is the same wherever a run was
    interrupted: both can change the rounding.
    """

    def __init__(self, A: SymmetricOperator, columns: Float[Tensor, "p k"]) -> None:
        self._operator = A
        self._columns = columns
        self._rows = torch.empty(columns.shape[1], A.size, dtype=A.dtype, device=A.device)
        self.done = 0

    @property
    def rows(self) -> Float[Tensor, "done p"]:
        """The images so far, one a row."""
        return self._rows[: self.done]

    def restore(self, rows: Float[Tensor, "done p"]) -> None:
        """Go on from these :attr:`rows`.

        Raises
        ------
        ValueError
            If there are more than columns, or they are of another kind.
        """
        done, size = rows.shape[0], self._rows.shape[1]
        require(done <= self._rows.shape[0], "the number of images")
        rows = finite(rows, "the images", (done, size), self._rows)
        self.done = done
        self.rows.copy_(rows)

    def complete(self, after_block: Callable[[int], None]) -> None:
        """Take the products that are left, telling after each block how many were in it.

        Raises
        ------
        FloatingPointError
            If a product is not finite.
        """
        count = self._rows.shape[0]
        while self.done < count:
            end = min(self.done + COLUMNS_AT_ONCE, count)
            columns = self._columns[:, self.done : end].to(self._operator.dtype)
            images = self._operator @ columns
            if not all_finite(images):
                raise not_finite(self._operator, "a product")
            self._rows[self.done : end] = images.T
            self.done = end
            after_block(columns.shape[1])
