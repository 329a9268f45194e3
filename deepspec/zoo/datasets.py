"""Data that need no download: class-balanced for training, the rest held out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Inputs and labels to train on, and those held out."""

    train_inputs: Float[Tensor, "n ..."]
    train_labels: Int[Tensor, " n"]
    test_inputs: Float[Tensor, "m ..."]
    test_labels: Int[Tensor, " m"]
    num_classes: int

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        return self.train_inputs, self.train_labels

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        return self.test_inputs, self.test_labels


def digits(per_class: int = 100, seed: int = 0, image: bool = False) -> Split:
    """The 1,797 handwritten digits, 8 × 8 grey values, that ship inside scikit-learn.

    Parameters
    ----------
    per_class
        Training samples of each class, drawn without replacement; all others are held out.
    seed
        Of the draw.
    image
        Shape (1, 8, 8) a sample instead of (64,).

    Returns
    -------
    Split
        Pixels centred and scaled by the mean and standard deviation of the training set.

    Raises
    ------
    ValueError
        If ``per_class`` is not in 1..173: the smallest class has 174, and one of each must be
        left to hold out.

    >>> split = digits(per_class=100)
    >>> split.train_inputs.shape, torch.bincount(split.train_labels).unique().tolist()
    (torch.Size([1000, 64]), [100])
    """
    features, targets = load_digits(return_X_y=True)
    inputs = torch.as_tensor(features, dtype=torch.float32)
    labels = torch.as_tensor(targets)
    smallest = int(torch.bincount(labels).min())
    if not 1 <= per_class < smallest:
        raise ValueError(f"expected per_class in 1..{smallest - 1}, got {per_class}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = torch.cat([order[labels[order] == c][:per_class] for c in range(10)])
    held_out = torch.ones(len(labels), dtype=torch.bool)
    held_out[chosen] = False
    centre, spread = inputs[chosen].mean(), inputs[chosen].std()
    inputs = (inputs - centre) / spread
    if image:
        inputs = inputs.view(-1, 1, 8, 8)
    return Split(inputs[chosen], labels[chosen], inputs[held_out], labels[held_out], 10)
