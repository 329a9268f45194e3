"""Labelled data in any of the forms users have it, as a repeatable stream of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

LABEL_KEYS = ("labels", "label")


class Batches:
    """Batches of (inputs, labels), the same ones in the same order at every pass.

    Parameters
    ----------
    data
        A pair of tensors (X, y), a map-style Dataset of (x, y), or a DataLoader that does not
        shuffle. A loader may also yield mappings with a ``"labels"`` entry; the rest of the
        mapping then goes to the model as keyword arguments.
    batch_size
        The largest batch. A DataLoader brings its own, which is kept.

    >>> stream = Batches((torch.zeros(5, 2), torch.arange(5)), batch_size=2)
    >>> [labels.tolist() for _, labels in stream]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, data: Any, batch_size: int | None) -> None:
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(f"expected a whole batch_size of at least 1, got {batch_size}")
        self.limit = batch_size
        self._data = data
        if isinstance(data, DataLoader):
            self.limit = None
        elif isinstance(data, tuple | list):
            inputs, labels = _pair(data)
            if len(inputs) != len(labels):
                raise ValueError(
                    f"expected as many inputs as labels, got {len(inputs)} and {len(labels)}"
                )
            self._data = (inputs, labels)
        elif not isinstance(data, Dataset):
            raise TypeError(
                "expected a pair of tensors (X, y), a Dataset or a DataLoader, got "
                f"{type(data).__name__}"
            )

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for inputs, labels in self._source():
            step = self.limit or max(len(labels), 1)
            for start in range(0, len(labels), step):
                yield cut(inputs, start, start + step), labels[start : start + step]

    def _source(self) -> Iterator[tuple[Any, Tensor]]:
        """Batches as the data come, before any are cut."""
        if isinstance(self._data, tuple):
            yield self._data
            return
        loader = self._data
        if not isinstance(loader, DataLoader):
            loader = DataLoader(loader, batch_size=self.limit, shuffle=False)
        # A loader draws a seed for its workers from the global generator; put that back.
        with torch.random.fork_rng(devices=[]):
            batches = iter(loader)
        for batch in batches:
            yield _split(batch)


def _pair(data: Any) -> tuple[Tensor, Tensor]:
    if len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
        raise TypeError(
            "expected a pair of tensors (X, y), got "
            f"({', '.join(type(part).__name__ for part in data)}); "
            "convert arrays with torch.as_tensor"
        )
    return data[0], data[1]


def _split(batch: Any) -> tuple[Any, Tensor]:
    """Inputs and labels of one batch of a loader."""
    if isinstance(batch, Mapping):
        for key in LABEL_KEYS:
            if key in batch:
                rest = {name: value for name, value in batch.items() if name != key}
                return rest, batch[key]
        raise TypeError(f"expected a batch with one of the keys {LABEL_KEYS}, got {list(batch)}")
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], torch.as_tensor(batch[1])
    raise TypeError(f"expected batches of (inputs, labels), got {type(batch).__name__}")


def cut(inputs: Any, start: int, stop: int) -> Any:
    """Samples start..stop−1 of a batch's inputs."""
    if isinstance(inputs, Mapping):
        return {name: cut(value, start, stop) for name, value in inputs.items()}
    return inputs[start:stop]


def join(left: Any, right: Any) -> Any:
    """The samples of two batches' inputs, one after the other."""
    if isinstance(left, Mapping):
        return {name: join(value, right[name]) for name, value in left.items()}
    return torch.cat([left, right])


def pick(inputs: Any, rows: Int[Tensor, " k"]) -> Any:
    """Some samples of a batch's inputs, by index."""
    if isinstance(inputs, Mapping):
        return {name: pick(value, rows) for name, value in inputs.items()}
    return inputs[rows]


def move(inputs: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Inputs on a device, floating-point ones in a dtype; integers (tokens) as they are."""
    if isinstance(inputs, Mapping):
        return {name: move(value, device, dtype) for name, value in inputs.items()}
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"expected tensors as the model's input, got {type(inputs).__name__}; "
            "give a dataset or a collate_fn that returns tensors"
        )
    return inputs.to(device, dtype if inputs.is_floating_point() else inputs.dtype)
