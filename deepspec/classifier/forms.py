"""The forms in which users have labelled data, recognised and opened as passes of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from deepspec.classifier.failures import raised
from deepspec.classifier.generators import undisturbed
from deepspec.classifier.labels import as_labels
from deepspec.classifier.loaders import batch_sizes, chosen_batches, is_by_index
from deepspec.classifier.trees import described, tensors

LABEL_KEYS = ("labels", "label")
FORMS = (
    "give (X, y), a Dataset or list of samples (x, y), or a DataLoader or list of batches (X, y); "
    "for a model of several inputs samples or batches as mappings of its arguments and labels, "
    "such as {'x1': x1, 'x2': x2, 'labels': y}"
)


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
    if _is_array(data) or isinstance(data, str | bytes):
        kind = described(data) if isinstance(data, Tensor) else type(data).__name__
        raise TypeError(f"expected inputs and labels, got one {kind}; {FORMS}")
    if isinstance(data, tuple | list):
        if not data:
            raise ValueError("expected at least one sample, got none; is the dataset empty?")
        return _whole(data) if _is_pair(data) else _sequence(data)
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
    if _is_batch(first):
        return Source(passes=lambda _: _batches(data, type(data).__name__), has_batches=True)
    # What is wrong with a sample is said better now than by what makes a batch of it.
    _parts(first)
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
            return _with_arrays(self.data[index])
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
        return map(_with_arrays, self.data)


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


def _started(batches: Iterable[Any], name: str) -> Iterator[Any]:
    try:
        return iter(batches)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"expected to go through the data, but {name} raised {raised(error)}"
        ) from error


# ---- one batch -------------------------------------------------------------------------------


def split(batch: Any) -> tuple[Any, Tensor]:
    """A batch's inputs, as a tensor, a tuple of arguments or a mapping of them, and its labels.

    Raises
    ------
    TypeError
        If it is no pair and no mapping with labels, or inputs are no tensors.
    ValueError
        If inputs and labels differ in number, or inputs are sparse or nested.
    """
    inputs, labels = _parts(batch)
    labels = as_labels(_as_tensor(labels) if _is_array(labels) else labels)
    inputs = _as_inputs(inputs)
    found = tensors(inputs)
    for tensor in found:
        if tensor.is_nested or tensor.layout != torch.strided:
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            how = "X.to_padded_tensor(0.0)" if tensor.is_nested else "X.to_dense()"
            raise ValueError(f"expected dense inputs, got a {kind} tensor; give {how}")
    # One tensor is by sample; of several, some may be settings that go to the model as they are.
    counts = [len(tensor) for tensor in found if tensor.ndim]
    if len(labels) not in counts:
        raise ValueError(
            "expected one label for each input of a batch, as many inputs as labels, got "
            f"{', '.join(map(str, counts)) or 'none'} and {len(labels)}; the inputs are "
            f"{described(inputs)}"
        )
    return inputs, labels


def _parts(batch: Any) -> tuple[Any, Any]:
    """Inputs and labels of a sample or batch, as they are."""
    if isinstance(batch, Mapping):
        key = next((key for key in LABEL_KEYS if key in batch), None)
        if key is None:
            raise TypeError(
                f"expected a mapping with one of the keys {LABEL_KEYS}, got {list(batch)}; {FORMS}"
            )
        return {k: value for k, value in batch.items() if k not in LABEL_KEYS}, batch[key]
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    came = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
    raise TypeError(f"expected batches of (inputs, labels), got {came}; {FORMS}")


def _is_pair(data: tuple | list) -> bool:
    """Whether two things are (X, y), rather than two samples or two batches."""
    if len(data) != 2 or isinstance(data[1], Mapping):
        return False
    labels = data[1]
    if _is_array(labels):
        return True
    return isinstance(labels, tuple | list) and all(_is_number(label) for label in labels)


def _is_batch(entry: Any) -> bool:
    """Whether an entry of a list is a batch: its labels are many, as its inputs are."""
    labels = _parts(entry)[1]
    if isinstance(labels, tuple | list):
        return True
    if not _is_array(labels) or labels.ndim == 0:
        return False
    found = [t for t in tensors(_as_inputs(_parts(entry)[0])) if t.ndim]
    # A label (1,) beside a single feature is that of one sample.
    return any(len(t) == len(labels) and (t.ndim > 1 or len(t) > 1) for t in found)


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int | np.integer)
    return whole or (isinstance(value, Tensor) and value.ndim == 0)


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "__array__")


def _as_tensor(value: Any) -> Tensor:
    """A tensor of an array, with the same numbers."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if not array.flags.writeable or any(step < 0 for step in array.strides):
        array = array.copy()
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        return torch.as_tensor(array)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"expected arrays of numbers, got {type(value).__name__} of {array.dtype}; give "
            "tensors, or arrays of float and integer types"
        ) from error


def _with_arrays(sample: Any) -> Any:
    """A sample whose arrays are tensors, to be made batches of."""
    if isinstance(sample, Mapping):
        return {key: _with_arrays(value) for key, value in sample.items()}
    if isinstance(sample, tuple | list) and not hasattr(sample, "_fields"):
        return type(sample)(map(_with_arrays, sample))
    return _as_tensor(sample) if isinstance(sample, np.ndarray) else sample


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, or rows of rows of them."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, int | float)


def _as_inputs(inputs: Any) -> Any:
    """Inputs with arrays as tensors; in a mapping anything may stand, elsewhere only tensors."""
    if isinstance(inputs, Mapping):
        return {k: _as_tensor(v) if _is_array(v) else v for k, v in inputs.items()}
    if _is_array(inputs):
        return _as_tensor(inputs)
    if isinstance(inputs, tuple | list) and not hasattr(inputs, "_fields") and len(inputs):
        if _is_plain(inputs):
            numbers = np.asarray(inputs)
            if numbers.dtype != object:
                return _as_tensor(numbers)
        elif all(_is_array(part) or isinstance(part, tuple | list | Mapping) for part in inputs):
            return tuple(map(_as_inputs, inputs))
    kind = type(inputs).__name__
    raise TypeError(
        f"expected tensors as the model's input, got {kind}; give a dataset or a collate_fn that "
        "returns tensors (padded, where sequences differ in length)"
    )
