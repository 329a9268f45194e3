"""Labels as class indices; what is not that is refused without advice that loses something."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

INTEGERS = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)
NOT_SUPPORTED = (
    "the loss here is the cross-entropy of one class a sample, and no conversion of soft labels "
    "gives the same one; give the class indices the net was trained on"
)


def class_indices(labels: Tensor, num_classes: int, first: int) -> Int[Tensor, " n"]:
    """Labels as int64 of shape (n,), each in 0..C−1; ``first`` is the number of their first sample.

    One column (n, 1) of integers, and two classes as booleans, can mean one thing only.

    Raises
    ------
    ValueError
        For anything else.

    >>> class_indices(torch.tensor([[1], [0]], dtype=torch.int32), 2, 0)
    tensor([1, 0])
    """
    if labels.dtype == torch.bool and labels.ndim == 1 and num_classes == 2:
        labels = labels.long()
    if labels.dtype in INTEGERS and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.ndim != 1 and not (labels.ndim == 2 and labels.shape[1] == 1):
        raise ValueError(
            f"expected one label a sample, shape (n,), got {tuple(labels.shape)}"
            + _of_rows(labels, num_classes)
        )
    if labels.dtype not in INTEGERS:
        raise ValueError(f"expected integer labels, got {labels.dtype}" + _of_type(labels))
    labels = labels.long()
    wrong = (labels < 0) | (labels >= num_classes)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        raise ValueError(
            f"expected labels in 0..{num_classes - 1}, got {int(labels[index])} at sample "
            f"{first + index}" + _of_range(labels, int(labels[index]), num_classes)
        )
    return labels


def as_labels(labels: Any) -> Tensor:
    """A batch's labels as a tensor, whatever array or list they came in.

    Raises
    ------
    TypeError
        If they are no numbers.
    ValueError
        If there is a single one: a sample, not a batch.
    """
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"expected integer labels, got {type(labels).__name__} that is no tensor ({error}); "
            "number the classes from 0"
        ) from error
    if found.ndim == 0:
        raise ValueError("expected batches, got a single sample; give the DataLoader a batch_size")
    return found


def _of_rows(labels: Tensor, num_classes: int) -> str:
    if labels.ndim != 2 or labels.shape[1] != num_classes or labels.is_complex():
        return "; give class indices in 0..C−1, one for each sample"
    values = labels.double()
    hot = bool(((values == 0) | (values == 1)).all())
    if hot and bool((values.sum(dim=1) == 1).all()):
        return (
            ": one-hot rows; their indices are y.argmax(1), which is right only if every row of "
            "all the data is one-hot, (y.sum(1) == 1).all() with entries 0 and 1"
        )
    return (": several classes or none; " if hot else ": soft labels; ") + NOT_SUPPORTED


def _of_type(labels: Tensor) -> str:
    if labels.dtype == torch.bool:
        return "; y.long() makes False class 0 and True class 1, if these two are meant"
    if labels.is_floating_point() and bool((labels == labels.round()).all()):
        return (
            "; these are whole numbers: if (y == y.round()).all() for all the data, y.long() "
            "keeps them"
        )
    return ": not whole numbers; " + NOT_SUPPORTED


def _of_range(labels: Tensor, wrong: int, num_classes: int) -> str:
    if wrong == num_classes and int(labels.min()) > 0:
        return "; if classes are counted from 1, subtract 1 (as was done when the net was trained)"
    if wrong == -100:
        return "; leave out the samples that were ignored in training (ignore_index)"
    return f"; the model has {num_classes} classes, one for each column of its logits"
