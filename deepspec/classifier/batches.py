"""Labelled data in any of the forms users have it, as a repeatable stream of batches."""

from __future__ import annotations

import operator
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
        A pair of tensors (X, y), a map-style Dataset of (x, y) or a list of such samples, or a
        DataLoader that does not shuffle. A loader may also yield mappings with a ``"labels"``
        entry; the rest of the mapping then goes to the model as keyword arguments, tensors by
        sample and anything else as it is.
    batch_size
        The largest batch. A DataLoader brings its own, which is kept.

    >>> stream = Batches((torch.zeros(5, 2), torch.arange(5)), batch_size=2)
    >>> [labels.tolist() for _, labels in stream]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, data: Any, batch_size: int | None) -> None:
        self.limit = None if batch_size is None else _whole(batch_size)
        self._data = data
        if isinstance(data, DataLoader):
            self.limit = None
        elif isinstance(data, list) and data and isinstance(data[0], tuple | list):
            pass
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


def _whole(batch_size: Any) -> int:
    try:
        found = operator.index(batch_size)
    except TypeError:
        found = 0
    if found < 1 or isinstance(batch_size, bool):
        raise ValueError(f"expected a whole batch_size of at least 1, got {batch_size!r}")
    return found


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
        key = next((key for key in LABEL_KEYS if key in batch), None)
        if key is None:
            raise TypeError(
                f"expected a batch with one of the keys {LABEL_KEYS}, got {list(batch)}"
            )
        inputs: Any = {k: value for k, value in batch.items() if k not in LABEL_KEYS}
        labels = batch[key]
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, labels = batch
    else:
        raise TypeError(f"expected batches of (inputs, labels), got {type(batch).__name__}")
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"expected integer labels, got {type(labels).__name__} that is no tensor ({error}); "
            "number the classes from 0"
        ) from error
    if labels.ndim == 0:
        raise ValueError("expected batches, got a single sample; give the DataLoader a batch_size")
    if isinstance(inputs, Tensor) and inputs.shape[:1] != labels.shape[:1]:
        raise ValueError(
            f"expected one label for each input of a batch, got inputs of shape "
            f"{tuple(inputs.shape)} and {len(labels)} labels"
        )
    return inputs, labels


def _by_sample(value: Any) -> bool:
    """Whether an entry of a batch has one row for each sample; flags and numbers have not."""
    return isinstance(value, Tensor) and value.ndim > 0


def cut(inputs: Any, start: int, stop: int) -> Any:
    """Samples start..stop−1 of a batch's inputs."""
    if isinstance(inputs, Mapping):
        return {name: cut(value, start, stop) for name, value in inputs.items()}
    return inputs[start:stop] if _by_sample(inputs) else inputs


def join(left: Any, right: Any) -> Any:
    """The samples of two batches' inputs, one after the other."""
    if isinstance(left, Mapping):
        return {name: join(value, right[name]) for name, value in left.items()}
    return torch.cat([left, right]) if _by_sample(left) else left


def pick(inputs: Any, rows: Int[Tensor, " k"]) -> Any:
    """Some samples of a batch's inputs, by index."""
    if isinstance(inputs, Mapping):
        return {name: pick(value, rows) for name, value in inputs.items()}
    return inputs[rows] if _by_sample(inputs) else inputs


def move(inputs: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Inputs on a device, floating-point ones in a dtype; integers (tokens) as they are."""
    if isinstance(inputs, Mapping):
        return {
            name: move(value, device, dtype) if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }
    if not isinstance(inputs, Tensor):
        raise TypeError(
            f"expected tensors as the model's input, got {type(inputs).__name__}; "
            "give a dataset or a collate_fn that returns tensors"
        )
    return inputs.to(device, dtype if inputs.is_floating_point() else inputs.dtype)
