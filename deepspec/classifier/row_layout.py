"""Which rows a model's output has: everything but one dimension of classes, flattened.

A row is what has a label: a sample, a token of a sequence, a pixel. Logits (b, …, C), or with
``class_dim`` classes in another place, become rows (R, C) in the order of the labels; rows that do
not count are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RowLayout:
    """How an output (b, …, C) becomes rows.

    Attributes
    ----------
    class_dim
        Which dimension holds the classes; None for the last.
    columns
        The outputs the loss is a function of, from those of the model; None where they are.
    flat
        False while the loss is not known yet: then only the classes are moved to the end.
    """

    class_dim: int | None = None
    columns: Callable[[Tensor], Tensor] | None = None
    flat: bool = True

    def rows(self, output: Any, index: Int[Tensor, " R"] | None) -> Float[Tensor, "R C"] | Any:
        """The rows of an output, those of an index; what is no tensor is left to the checks."""
        if not isinstance(output, Tensor):
            return output
        moved = self.classes_last(output)
        if not self.flat:
            return moved
        found = moved.reshape(-1, moved.shape[-1]) if moved.ndim != 2 else moved
        if index is not None:
            found = found.index_select(0, index)
        return found if self.columns is None else self.columns(found)

    def classes_last(self, output: Tensor) -> Tensor:
        """The output with its classes in the last dimension; one number a sample is one class."""
        if output.ndim == 1:
            return output[:, None]
        if self.class_dim is None or not -output.ndim <= self.class_dim < output.ndim:
            return output
        return output.movedim(self.class_dim, -1)


def counted(mask: Bool[Tensor, "b ..."] | None) -> Int[Tensor, " R"] | None:
    """Which rows count, by number; None where all do.

    >>> import torch
    >>> counted(torch.tensor([[True, False], [False, True]])), counted(torch.ones(2, 2).bool())
    (tensor([0, 3]), None)
    """
    if mask is None or bool(mask.all()):
        return None
    return mask.flatten().nonzero()[:, 0]


def require_class_dim(class_dim: object) -> None:
    """Refuse what names no dimension.

    Raises
    ------
    TypeError
        If it is no whole number, or that of the batch.
    """
    whole = isinstance(class_dim, int) and not isinstance(class_dim, bool)
    if class_dim is not None and (not whole or class_dim == 0):
        raise TypeError(
            f"expected class_dim as the dimension of the logits that holds the classes, got "
            f"{class_dim!r}; 1 for (batch, C, height, width), None where it is the last"
        )
