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
    "several classes that do not exclude one another are the loss of loss=torch.nn."
    "BCEWithLogitsLoss() with y.float(); else give the class indices the net was trained on"
)


def class_indices(
    labels: Tensor, shape: tuple[int, ...], first: int, ignore_index: int = -100
) -> Int[Tensor, " n"]:
    """The class of each row as int64, in 0..C−1 or ``ignore_index``; row by row, flat.

    ``shape`` is that of the logits, (b, …, C), and ``first`` the number of their first sample. One
    column (b, 1) of integers, and two classes as booleans, can mean one thing only.

    Raises
    ------
    ValueError
        For anything else.

    >>> class_indices(torch.tensor([[1], [0]], dtype=torch.int32), (2, 2), 0)
    tensor([1, 0])
    >>> class_indices(torch.tensor([[1, -100], [0, 1]]), (2, 2, 5), 0)
    tensor([   1, -100,    0,    1])
    """
    rows, num_classes = tuple(shape[:-1]), shape[-1]
    if labels.dtype == torch.bool and labels.shape == rows and num_classes == 2:
        labels = labels.long()
    column = len(rows) == 1 and labels.shape == (*rows, 1)
    if labels.dtype in INTEGERS and column:
        labels = labels.squeeze(1)
    if labels.shape != rows and not column:
        raise ValueError(
            (
                f"expected one label a sample, shape (n,), got {tuple(labels.shape)}"
                if len(rows) == 1
                else f"expected one label for each row of the logits {tuple(shape)}, shape "
                f"{rows}, got {tuple(labels.shape)}"
            )
            + _of_rows(labels, shape)
        )
    if labels.dtype not in INTEGERS:
        raise ValueError(f"expected integer labels, got {labels.dtype}" + _of_type(labels))
    labels = labels.reshape(-1).long()
    wrong = ((labels < 0) | (labels >= num_classes)) & (labels != ignore_index)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        each = len(labels) // max(rows[0], 1)
        place = f", position {index % each}" if each > 1 else ""
        raise ValueError(
            f"expected labels in 0..{num_classes - 1}, got {int(labels[index])} at sample "
            f"{first + index // each}{place}"
            + _of_range(labels, int(labels[index]), num_classes, ignore_index)
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


def _of_rows(labels: Tensor, shape: tuple[int, ...]) -> str:
    if labels.shape != shape or labels.is_complex():
        if len(shape) > 2 and labels.ndim == len(shape) - 1:
            return "; where classes are another dimension of the logits, say so with class_dim="
        return "; give class indices in 0..C−1, one for each sample"
    values = labels.double().flatten(0, -2)
    hot = bool(((values == 0) | (values == 1)).all())
    if hot and bool((values.sum(dim=1) == 1).all()):
        return (
            ": one-hot rows; their indices are y.argmax(1), which is right only if every row of "
            "all the data is one-hot, (y.sum(1) == 1).all() with entries 0 and 1"
        )
    return (": several classes or none; " if hot else ": numbers; ") + NOT_SUPPORTED


def _of_type(labels: Tensor) -> str:
    if labels.dtype == torch.bool:
        return "; y.long() makes False class 0 and True class 1, if these two are meant"
    if labels.is_floating_point() and bool((labels == labels.round()).all()):
        return (
            "; these are whole numbers: if (y == y.round()).all() for all the data, y.long() "
            "keeps them"
        )
    return (
        ": not whole numbers; give class indices, soft labels as probabilities of the logits' "
        "shape, or another loss= (torch.nn.MSELoss() for regression)"
    )


def _of_range(labels: Tensor, wrong: int, num_classes: int, ignore_index: int) -> str:
    if wrong == num_classes and int(labels.min()) > 0:
        return "; if classes are counted from 1, subtract 1 (as was done when the net was trained)"
    if wrong < 0:
        return (
            f"; if rows with this label were ignored in training, pass loss=torch.nn."
            f"CrossEntropyLoss(ignore_index={wrong}); the model has {num_classes} classes, and "
            f"{ignore_index} is what is ignored"
        )
    return f"; the model has {num_classes} classes, one for each column of its logits"
