"""One batch, or sample: which of it are inputs and which labels, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepspec.classifier.labels import as_labels
from deepspec.classifier.trees import described, tensors

LABEL_KEYS = ("labels", "label")
FORMS = (
    "give (X, y), a Dataset or list of samples (x, y), or a DataLoader or list of batches (X, y); "
    "for a model of several inputs samples or batches as mappings of its arguments and labels, "
    "such as {'x1': x1, 'x2': x2, 'labels': y}"
)


def split(batch: Any) -> tuple[Any, Tensor]:
    """A batch's inputs, as a tensor, a tuple of arguments or a mapping of them, and its labels.

    Raises
    ------
    TypeError
        If it is no pair and no mapping with labels, or inputs are no tensors.
    ValueError
        If inputs and labels differ in number, or inputs are sparse or nested.
    """
    inputs, labels = parts(batch)
    labels = as_labels(_as_tensor(labels) if is_array(labels) else labels)
    inputs = _as_inputs(inputs)
    found = tensors(inputs)
    for tensor in found:
        if tensor.is_nested or tensor.layout != torch.strided:
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
            how = (
                "samples of one length, or padded as in training"
                if tensor.is_nested
                else "X.to_dense()"
            )
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


def parts(batch: Any) -> tuple[Any, Any]:
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


def is_pair(data: tuple | list) -> bool:
    """Whether two things are (X, y), rather than two samples or two batches."""
    if len(data) != 2 or isinstance(data[1], Mapping):
        return False
    labels = data[1]
    if is_array(labels):
        return True
    return isinstance(labels, tuple | list) and all(_is_number(label) for label in labels)


def is_batch(entry: Any) -> bool:
    """Whether an entry of a list is a batch: its labels are many, as its inputs are."""
    labels = parts(entry)[1]
    if isinstance(labels, tuple | list):
        return True
    if not is_array(labels) or labels.ndim == 0:
        return False
    found = [t for t in tensors(_as_inputs(parts(entry)[0])) if t.ndim]
    # A label (1,) beside a single feature is that of one sample.
    return any(len(t) == len(labels) and (t.ndim > 1 or len(t) > 1) for t in found)


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int | np.integer)
    return whole or (isinstance(value, Tensor) and value.ndim == 0)


def is_array(value: Any) -> bool:
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


def with_arrays(sample: Any) -> Any:
    """A sample whose arrays are tensors, to be made batches of."""
    if isinstance(sample, Mapping):
        return {key: with_arrays(value) for key, value in sample.items()}
    if isinstance(sample, tuple | list) and not hasattr(sample, "_fields"):
        return type(sample)(map(with_arrays, sample))
    return _as_tensor(sample) if isinstance(sample, np.ndarray) else sample


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, or rows of rows of them."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, int | float)


def _as_inputs(inputs: Any) -> Any:
    """Inputs with arrays as tensors; in a mapping anything may stand, elsewhere only tensors."""
    if isinstance(inputs, Mapping):
        return {k: _as_tensor(v) if is_array(v) else v for k, v in inputs.items()}
    if is_array(inputs):
        return _as_tensor(inputs)
    if isinstance(inputs, tuple | list) and not hasattr(inputs, "_fields") and len(inputs):
        if _is_plain(inputs):
            numbers = np.asarray(inputs)
            if numbers.dtype != object:
                return _as_tensor(numbers)
        elif all(is_array(part) or isinstance(part, tuple | list | Mapping) for part in inputs):
            return tuple(map(_as_inputs, inputs))
    kind = type(inputs).__name__
    raise TypeError(
        f"expected tensors as the model's input, got {kind}; give a dataset or a collate_fn that "
        "returns tensors (padded as in training, where sequences differ in length)"
    )
