"""The forms in which users have labelled data, recognised and opened as passes of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from deepspec.classifier.batch_parts import (
    FORMS,
    is_array,
    is_batch,
    is_pair,
    parts,
    split,
    with_arrays,
)
from deepspec.classifier.failures import raised
from deepspec.classifier.generators import undisturbed
from deepspec.classifier.loaders import batch_sizes, chosen_batches, is_by_index
from deepspec.classifier.trees import described


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data in a form that is known.

    ``passes(batch_size)`` starts a pass of (inputs, labels); ``has_batches`` says that batches
    come as the user made them. Where some batches can be had without making the others,
    ``part(batch_size, numbers)`` gives them, and ``sizes(batch_size)`` tells all their sizes.
    """

    passes: Callable[[int | None], Iterator[tuple[Any, Tensor]]]
    has_batches: bool = False
    part: Callable[[int | None, range], Iterator[tuple[Any, Tensor]]] | None = None
    sizes: Callable[[int | None], list[int]] | None = None


def opened(data: Any) -> Source:
    """Find out which form the data have; only the first sample or batch is looked at.

    Raises
    ------
    TypeError
        If they have none of the accepted forms, which the error names.
    ValueError
        If there are none, or inputs and labels differ in number.
    """
    if isinstance(data, DataLoader):
        return _loader(data)
    if isinstance(data, Mapping):
        return _whole(data)
    if is_array(data) or isinstance(data, str | bytes):
        kind = described(data) if isinstance(data, Tensor) else type(data).__name__
        raise TypeError(f"expected inputs and labels, got one {kind}; {FORMS}")
    if isinstance(data, tuple | list):
        if not data:
            raise ValueError("expected at least one sample, got none; is the dataset empty?")
        return _whole(data) if is_pair(data) else _sequence(data)
    if isinstance(data, Dataset) or (hasattr(data, "__getitem__") and isinstance(data, Sized)):
        return _samples(data)
    if isinstance(data, Iterator):
        raise TypeError(
            f"expected data that can be gone through again and again, got a {type(data).__name__}, "
            "which gives its samples once; keep its batches in a list, list(batches), or give a "
            "DataLoader"
        )
    if isinstance(data, Iterable):
        return _sequence(data)
    raise TypeError(f"expected inputs and labels, got {type(data).__name__}; {FORMS}")


# ---- one form each ---------------------------------------------------------------------------


def _loader(data: DataLoader) -> Source:
    name = type(data).__name__

    def passes(_: int | None) -> Iterator[tuple[Any, Tensor]]:
        return _batches(data, name)

    if not is_by_index(data):
        return Source(passes=passes, has_batches=True)

    return Source(
        passes=passes,
        has_batches=True,
        part=lambda _, chosen: _batches(chosen_batches(data, chosen), name),
        sizes=lambda _: batch_sizes(data),
    )


def _whole(data: Any) -> Source:
    """All data at once, to be cut into batches."""
    inputs, labels = split(data)
    return Source(passes=lambda _: iter([(inputs, labels)]))


def _samples(data: Any) -> Source:
    numbered: Any = data
    if isinstance(data, IterableDataset):
        pass
    elif isinstance(data, Sized):
        numbered = _Numbered(data)
    else:
        raise TypeError(
            f"expected a Dataset that knows its length, got {type(data).__name__} without "
            "__len__; add it, or make an IterableDataset"
        )

    def passes(batch_size: int | None) -> Iterator[tuple[Any, Tensor]]:
        if isinstance(numbered, Sized) and len(numbered) == 0:
            return iter(())
        loader = DataLoader(numbered, batch_size=batch_size, shuffle=False)
        return _batches(loader, type(data).__name__)

    if not isinstance(numbered, _Numbered):
        return Source(passes=passes)

    def part(batch_size: int | None, chosen: range) -> Iterator[tuple[Any, Tensor]]:
        step = batch_size or 1
        within = range(chosen.start * step, min(chosen.stop * step, len(numbered)))
        loader = DataLoader(Subset(numbered, within), batch_size=batch_size, shuffle=False)
        return _batches(loader, type(data).__name__)

    def sizes(batch_size: int | None) -> list[int]:
        step = batch_size or 1
        return [min(step, len(numbered) - start) for start in range(0, len(numbered), step)]

    return Source(passes=passes, part=part, sizes=sizes)


def _sequence(data: Iterable[Any]) -> Source:
    """A list, or another iterable, of samples or of batches: its first entry tells which."""
    first = next(iter(data), None)
    if first is None:
        raise ValueError("expected at least one sample, got none; is the dataset empty?")
    if is_batch(first):
        return Source(passes=lambda _: _batches(data, type(data).__name__), has_batches=True)
    # What is wrong with a sample is said better now than by what makes a batch of it.
    parts(first)
    return _samples(
        data if isinstance(data, Sized) and hasattr(data, "__getitem__") else _Again(data)
    )


class _Numbered(Dataset):
    """A user's samples; what getting one raises is told with the sample's number."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        try:
            return with_arrays(self.data[index])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise _Told(
                f"expected sample {index} of the data, but {type(self.data).__name__} raised "
                f"{raised(error)}"
            ) from error


class _Again(IterableDataset):
    """An iterable of samples."""

    def __init__(self, data: Iterable[Any]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        return map(with_arrays, self.data)


class _Told(RuntimeError):
    """An error that says already where in the data it happened."""


def _batches(batches: Iterable[Any], name: str) -> Iterator[tuple[Any, Tensor]]:
    """Each batch as (inputs, labels); what making one raises is told with its number."""
    # A loader draws a seed for its workers, a Dataset perhaps more; generators are put back.
    with undisturbed(everywhere=True):
        stream = _started(batches, name)
    number, first = 0, 0
    while True:
        with undisturbed(everywhere=True):
            try:
                batch = next(stream)
            except StopIteration:
                _require_all(batches, number, name)
                return
            except (torch.OutOfMemoryError, _Told):
                raise
            except Exception as error:
                hint = "; give a collate_fn" if "stack expects" in str(error) else ""
                raise RuntimeError(
                    f"expected batch {number} of the data (from sample {first}), but {name} "
                    f"raised {raised(error)}{hint}"
                ) from error
        inputs, labels = split(batch)
        yield inputs, labels
        number, first = number + 1, first + len(labels)


def _require_all(batches: Iterable[Any], number: int, name: str) -> None:
    """A StopIteration of a user's own ends a DataLoader's pass without a word."""
    if not isinstance(batches, DataLoader) or isinstance(batches.dataset, IterableDataset):
        return
    if number != len(batches):
        raise _Told(
            f"expected {len(batches)} batches of the data, but {name} ended after {number}; does "
            "its Dataset raise StopIteration, or its sampler give fewer samples than its length?"
        )


def _started(batches: Iterable[Any], name: str) -> Iterator[Any]:
    try:
        return iter(batches)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"expected to go through the data, but {name} raised {raised(error)}"
        ) from error
