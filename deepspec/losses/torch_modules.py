"""PyTorch's own loss modules, as the losses here."""

from __future__ import annotations

from typing import Any

from torch import nn

from deepspec.losses.base import Loss
from deepspec.losses.binary import BinaryCrossEntropy, MultiLabelCrossEntropy
from deepspec.losses.cross_entropy import CrossEntropy
from deepspec.losses.regression import SquaredError


def as_loss(loss: Any, width: int) -> Loss:
    """A loss of one's own as it is; of a PyTorch module the one it computes; None: cross-entropy.

    ``width`` is the number of the model's outputs: BCEWithLogitsLoss of one is two classes.

    Raises
    ------
    TypeError
        For a loss that is not known.
    ValueError
        If the module does not take means, or weighs single samples.

    >>> as_loss(nn.CrossEntropyLoss(label_smoothing=0.1), 3)
    CrossEntropy(weight=None, ignore_index=-100, label_smoothing=0.1)
    """
    if loss is None:
        return CrossEntropy()
    if isinstance(loss, Loss):
        return loss
    # Exact types only: a subclass may compute something else.
    known = type(loss) in (nn.CrossEntropyLoss, nn.MSELoss, nn.BCEWithLogitsLoss)
    if known and loss.reduction != "mean":
        raise ValueError(
            f'expected a loss with reduction="mean", got {loss.reduction!r}; matrices here are '
            "those of the mean (a sum's are n times as large)"
        )
    if type(loss) is nn.CrossEntropyLoss:
        return CrossEntropy(
            loss.weight, ignore_index=loss.ignore_index, label_smoothing=loss.label_smoothing
        )
    if type(loss) is nn.MSELoss:
        return SquaredError()
    if type(loss) is nn.BCEWithLogitsLoss:
        if loss.weight is not None:
            raise ValueError(
                "expected BCEWithLogitsLoss without weight, which is one for each number of a "
                "batch; give row_weights= (which are normalised), or pos_weight"
            )
        if width == 1:
            single = 1.0 if loss.pos_weight is None else float(loss.pos_weight)
            return BinaryCrossEntropy(single)
        return MultiLabelCrossEntropy(loss.pos_weight)
    raise TypeError(
        f"expected a loss, got {loss!r:.60}; give torch.nn.CrossEntropyLoss, MSELoss or "
        "BCEWithLogitsLoss, or a subclass of deepspec.losses.Loss with the method value"
    )
