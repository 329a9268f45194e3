"""MNIST-1D (Greydanus and Kobak, 2024), drawn here: any n per class, nothing to download.

Each sample is one of ten short curves, padded, stretched, scaled, shifted, sheared and buried in
noise. A small net reaches zero training error and leaves test error, and samples of a class
differ, so that G has a part within classes, which the digits hardly have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from deepspec.seeds import Seed, whole_seed
from deepspec.zoo.datasets import Split

# Heights of the ten digits drawn as curves, from the paper's repository (Apache-2.0).
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
PADDING = 36, 60
LENGTH = len(TEMPLATES[0]) + PADDING[1]  # 72, before it is brought to FINAL
FINAL = 40
SCALE, SHIFT, SHEAR, CORRELATED, INDEPENDENT = 0.4, 48, 0.75, 0.25, 0.02

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """The random numbers behind n samples; uniform ones are in [0, 1)."""

    padding: Float[Array, " n"]
    scale: Float[Array, " n"]
    shift: Int[NDArray[np.int64], " n"]
    correlated: Float[Array, "n 72"]
    independent: Float[Array, "n 72"]
    shear: Float[Array, " n"]


def mnist1d(per_class: int = 100, seed: Seed = 0, test_per_class: int = 100) -> Split:
    """Sequences of 40 numbers of ten classes, by the recipe the data set was published with.

    Parameters
    ----------
    per_class, test_per_class
        Samples of each class to train on, and to hold out.
    seed
        Of everything; held-out samples depend on it alone, not on ``per_class``.

    Returns
    -------
    Split
        Centred and scaled by the mean and standard deviation of the training set.

    Raises
    ------
    ValueError
        If either number is below 1.

    >>> split = mnist1d(per_class=50)
    >>> split.train_inputs.shape, split.test_inputs.shape
    (torch.Size([500, 40]), torch.Size([1000, 40]))
    """
    if per_class < 1 or test_per_class < 1:
        raise ValueError(
            f"expected at least 1 sample of each class, got per_class={per_class} and "
            f"test_per_class={test_per_class}"
        )
    parts, chosen = [], whole_seed(seed)
    for place, count in enumerate((per_class, test_per_class)):
        labels = np.repeat(np.arange(10), count)
        generator = np.random.default_rng([chosen, place])
        inputs = torch.as_tensor(render(labels, draw(len(labels), generator)))
        parts.append((inputs.float(), torch.as_tensor(labels)))
    (train, train_labels), (test, test_labels) = parts
    centre, spread = train.mean(), train.std()
    return Split((train - centre) / spread, train_labels, (test - centre) / spread, test_labels, 10)


def draw(count: int, generator: np.random.Generator) -> Draws:
    """What :func:`render` needs for ``count`` samples."""
    return Draws(
        padding=generator.random(count),
        scale=generator.random(count),
        shift=generator.integers(SHIFT, size=count),
        correlated=generator.standard_normal((count, LENGTH)),
        independent=generator.standard_normal((count, LENGTH)),
        shear=generator.random(count),
    )


def render(labels: Int[NDArray[np.int64], " n"], draws: Draws) -> Float[Array, "n 40"]:
    """The samples that some random numbers make."""
    low, high = PADDING
    paddings = low + (draws.padding * (high - low + 1)).astype(int)
    curves = _stretched()[labels, paddings - low]
    curves = curves * (1 + SCALE * (draws.scale - 0.5))[:, None]
    # A shift to the right, what falls off coming in on the left.
    places = (np.arange(LENGTH) - draws.shift[:, None]) % LENGTH
    curves = np.take_along_axis(curves, places, axis=1)
    # Correlated noise stands where the curve does not.
    noise = gaussian_filter1d(CORRELATED * draws.correlated, 2, axis=1)
    curves = np.where(curves != 0, curves, noise) + INDEPENDENT * draws.independent
    slope = np.linspace(-0.5, 0.5, LENGTH)
    curves = curves - (SHEAR * (draws.shear - 0.5))[:, None] * slope
    return np.stack([_resampled(curve, FINAL) for curve in curves])


def _stretched() -> Float[Array, "10 25 72"]:
    """Every template with every number of zeros after it, brought to one length."""
    curves = np.asarray(TEMPLATES, dtype=float)
    curves -= curves.mean(axis=1, keepdims=True)
    curves /= curves.std(axis=1, keepdims=True)
    curves = (curves - curves[:, :1]) / 6
    low, high = PADDING
    return np.stack(
        [
            # Off zero by a little: zeros mark where noise will stand.
            [_resampled(np.pad(curve + 1e-8, (0, p)), LENGTH) for p in range(low, high + 1)]
            for curve in curves
        ]
    )


def _resampled(curve: Array, length: int) -> Array:
    """Linear interpolation at evenly spaced places."""
    places = np.linspace(0, 1, length)
    return np.asarray(np.interp(places, np.linspace(0, 1, len(curve)), curve))
