"""Labelled data in any of the forms users have it, as a repeatable stream of batches."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from deepspec.arguments import shown
from deepspec.classifier.forms import opened
from deepspec.classifier.loaders import lost_samples
from deepspec.classifier.trees import cut


class Batches:
    """Batches of (inputs, labels), the same ones in the same order at every pass.

    Parameters
    ----------
    data
        Tensors or arrays (X, y); a map-style Dataset of (x, y) or a list of such samples; a
        DataLoader that does not shuffle, or a list (or other iterable that can be gone through
        again) of batches. X may be a tuple of the model's arguments, and a sample or batch a
        mapping with a ``"labels"`` entry; the rest of the mapping then goes to the model as
        keyword arguments, tensors by sample and anything else as it is.
    batch_size
        The largest batch. A DataLoader or list of batches brings its own, which is kept.

    Warns
    -----
    RuntimeWarning
        If a DataLoader leaves out samples (``drop_last=True``).

    >>> import torch
    >>> stream = Batches((torch.zeros(5, 2), torch.arange(5)), batch_size=2)
    >>> [labels.tolist() for _, labels in stream]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, data: Any, batch_size: int | None) -> None:
        limit = None if batch_size is None else _whole(batch_size)
        self._source = opened(data)
        self.limit = None if self._source.has_batches else limit
        lost = lost_samples(data)
        if lost:
            warnings.warn(
                f"the DataLoader's drop_last=True leaves out {lost} sample{'s' * (lost > 1)}, "
                "which are then in no mean and no spectrum; pass drop_last=False",
                RuntimeWarning,
                stacklevel=3,
            )

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        return self.some(None)

    def some(self, chosen: range | None) -> Iterator[tuple[Any, Tensor]]:
        """The batches of these numbers, or all; others are not made where that can be helped."""
        number, part = 0, self._source.part
        if chosen is not None and not chosen:
            return
        if chosen is None or part is None:
            stream = self._source.passes(self.limit)
        else:
            number, stream = chosen.start, part(self.limit, chosen)
        for inputs, labels in stream:
            step = self.limit or max(len(labels), 1)
            for start in range(0, len(labels), step):
                if chosen is None or number in chosen:
                    stop = start + step
                    yield cut(inputs, len(labels), start, stop), labels[start:stop]
                number += 1
                if chosen is not None and number == chosen.stop:
                    return

    def sizes(self) -> list[int]:
        """The number of samples of every batch; a pass over the data where nothing else tells."""
        known = None if self._source.sizes is None else self._source.sizes(self.limit)
        return [len(labels) for _, labels in self.some(None)] if known is None else known


def _whole(batch_size: Any) -> int:
    try:
        found = operator.index(batch_size)
    except TypeError:
        found = 0
    if found < 1 or isinstance(batch_size, bool):
        raise ValueError(f"expected a whole batch_size of at least 1, got {shown(batch_size)}")
    return found
