"""Labelled samples, class-balanced for training and standardised; and the digits, as an example."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.datasets import load_digits
from torch import Tensor

from deepspec.seeds import Seed, whole_seed


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Inputs and labels to train on, and those held out."""

    train_inputs: Float[Tensor, "n ..."]
    train_labels: Int[Tensor, " n"]
    test_inputs: Float[Tensor, "m ..."]
    test_labels: Int[Tensor, " m"]
    num_classes: int

    def __repr__(self) -> str:
        counts = f"{len(self.train_labels):,} to train on, {len(self.test_labels):,} held out"
        shape = " × ".join(map(str, self.shape))
        return f"Split({counts}, {self.num_classes} classes, inputs {shape})"

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        return self.train_inputs, self.train_labels

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        return self.test_inputs, self.test_labels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.train_inputs.shape[1:])

    def with_label_noise(self, share: float, seed: Seed = 0) -> Split:
        """The same samples, a share of the training labels replaced by another class's.

        Which ones, and by which of the C − 1 others, is drawn evenly. Analyse a net on what it
        was trained on: the labels of the split that this returns.

        Raises
        ------
        ValueError
            If the share is not in 0..1.

        >>> split = digits(per_class=100)
        >>> noisy = split.with_label_noise(0.25)
        >>> int((noisy.train_labels != split.train_labels).sum())
        250
        """
        if not 0 <= share <= 1:
            raise ValueError(f"expected a share of labels in 0..1, got {share}")
        generator = torch.Generator().manual_seed(whole_seed(seed))
        n = len(self.train_labels)
        chosen = torch.randperm(n, generator=generator)[: round(share * n)]
        steps = torch.randint(1, self.num_classes, (len(chosen),), generator=generator)
        labels = self.train_labels.clone()
        labels[chosen] = (labels[chosen] + steps) % self.num_classes
        return dataclasses.replace(self, train_labels=labels)


def balanced(
    labels: Int[Tensor, " n"], per_class: int | None, classes: int, seed: Seed, spare: int = 0
) -> Int[Tensor, " k"]:
    """The places of ``per_class`` samples of each class, drawn without replacement, class by class.

    With one seed, a smaller draw is part of a larger one. ``None`` takes all, as they come.

    Parameters
    ----------
    spare
        How many of each class must be left.

    Raises
    ------
    ValueError
        If a class has too few samples.

    >>> balanced(torch.tensor([1, 0, 1, 0]), 1, 2, seed=0).shape
    torch.Size([2])
    """
    if per_class is None:
        return torch.arange(len(labels))
    smallest = int(torch.bincount(labels, minlength=classes).min()) - spare
    if not 1 <= per_class <= smallest:
        left = f", with {spare} of each left to hold out" if spare else ""
        raise ValueError(
            f"expected per_class in 1..{smallest}, got {per_class}: the smallest class has "
            f"{smallest + spare} samples{left}"
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(whole_seed(seed)))
    return torch.cat([order[labels[order] == c][:per_class] for c in range(classes)])


def digits(per_class: int = 100, seed: Seed = 0, image: bool = False, side: int = 8) -> Split:
    """The 1,797 handwritten digits, 8 × 8 grey values, that ship inside scikit-learn.

    Parameters
    ----------
    per_class
        Training samples of each class, drawn without replacement; all others are held out.
    seed
        Of the draw.
    image
        Shape (1, side, side) a sample instead of (64,).
    side
        Images are padded to it with what the background is.

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
    chosen = balanced(labels, per_class, 10, seed, spare=1)
    held_out = torch.ones(len(labels), dtype=torch.bool)
    held_out[chosen] = False
    if image:
        inputs = padded(inputs.view(-1, 1, 8, 8), side)
    centre, spread = inputs[chosen].mean(), inputs[chosen].std()
    inputs = (inputs - centre) / spread
    return Split(inputs[chosen], labels[chosen], inputs[held_out], labels[held_out], 10)


def padded(images: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c s s"]:
    """Zeros around images, to ``side`` pixels each way; larger ones stay as they are.

    >>> padded(torch.ones(1, 1, 2, 2), 4)[0, 0].sum(dim=1)
    tensor([0., 2., 2., 0.])
    """
    high, wide = (max(side - size, 0) for size in images.shape[2:])
    borders = wide // 2, wide - wide // 2, high // 2, high - high // 2
    return torch.nn.functional.pad(images, borders)
