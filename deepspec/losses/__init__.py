"""Losses of one row of outputs each: value, residual, Hessian by the outputs, and its root."""

from deepspec.losses.base import Loss, Targets
from deepspec.losses.binary import BinaryCrossEntropy, MultiLabelCrossEntropy
from deepspec.losses.cross_entropy import CrossEntropy
from deepspec.losses.regression import SquaredError
from deepspec.losses.torch_modules import as_loss

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Loss",
    "MultiLabelCrossEntropy",
    "SquaredError",
    "Targets",
    "as_loss",
]
