"""The nets of the papers and of the benchmarks, small enough to read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def mlp(
    inputs: int = 64, widths: Sequence[int] = (64, 64), classes: int = 10, seed: int = 0
) -> nn.Sequential:
    """Linear, batch normalisation and ReLU for each width, then a linear classifier ([002] §7).

    >>> sum(p.numel() for p in mlp(4, (8,), 3).parameters())
    83
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, classes))


def vgg(
    plan: Sequence[int | str],
    channels: int = 3,
    side: int = 32,
    hidden: Sequence[int] = (),
    classes: int = 10,
    seed: int = 0,
) -> nn.Sequential:
    """3 × 3 convolutions with batch normalisation and ReLU; ``"M"`` halves the image.

    As in [002] D.3, batch normalisation stands where VGG had dropout.

    >>> net = vgg((8, "M"), channels=1, side=8)
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for width in plan:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
                side //= 2
            else:
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                channels = width
        return nn.Sequential(*layers, *mlp(channels * side * side, hidden, classes, seed))


def small_vgg(channels: int = 3, side: int = 32, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Four convolutions, for benchmarks: 0.26 million parameters on 3 × 32 × 32 images."""
    return vgg((32, "M", 64, "M", 128, 128, "M"), channels, side, (), classes, seed)


def convnet(channels: int = 1, side: int = 8, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Two convolutions, for the digits."""
    return vgg((8, "M", 16, "M"), channels, side, (), classes, seed)


def vgg11(channels: int = 3, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """VGG11 for 32 × 32 images, with the 28 million parameters of the papers' nets."""
    plan = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
    return vgg(plan, channels, 32, (4096, 4096), classes, seed)
