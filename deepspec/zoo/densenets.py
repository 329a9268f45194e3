"""Densely connected nets for 32 × 32 images (Huang et al., 2017)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepspec.seeds import Seed, whole_seed
from deepspec.zoo.networks import he_initialised


def before(channels: int, *, normalise: bool) -> list[nn.Module]:
    """What stands before a convolution: batch normalisation and ReLU."""
    return [nn.BatchNorm2d(channels), nn.ReLU()] if normalise else [nn.ReLU()]


class Dense(nn.Module):
    """x beside ``growth`` new channels made from it; through 4 · growth with a bottleneck."""

    def __init__(self, channels: int, growth: int, *, bottleneck: bool, normalise: bool) -> None:
        super().__init__()
        layers = before(channels, normalise=normalise)
        if bottleneck:
            layers.append(nn.Conv2d(channels, 4 * growth, 1, bias=not normalise))
            channels = 4 * growth
            layers += before(channels, normalise=normalise)
        layers.append(nn.Conv2d(channels, growth, 3, padding=1, bias=not normalise))
        self.new = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return torch.cat([x, self.new(x)], dim=1)


def densenet(
    depth: int = 40,
    growth: int = 12,
    channels: int = 3,
    classes: int = 10,
    seed: Seed = 0,
    *,
    bottleneck: bool = False,
    compression: float = 1.0,
    normalise: bool = True,
) -> nn.Sequential:
    """A 3 × 3 stem, three dense blocks with 1 × 1 convolutions and pooling between, a linear map.

    Parameters
    ----------
    depth
        Layers with weights: 3 n + 4, or 6 n + 4 with bottlenecks.
    growth
        k, the channels that each layer adds.
    compression
        The share of channels that a transition keeps: 1 in DenseNet, 0.5 in DenseNet-BC, which
        has bottlenecks too.

    Raises
    ------
    ValueError
        If no three blocks make up this depth.

    >>> net = densenet(10, 4, channels=1)
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    step = 6 if bottleneck else 3
    if depth < step + 4 or (depth - 4) % step:
        raise ValueError(f"expected a depth of {step} n + 4 layers, got {depth}; 40 is one")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole_seed(seed))
        width = 2 * growth if bottleneck else 16
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=not normalise)]
        for place in range(3):
            if place:
                kept = int(compression * width)
                layers += before(width, normalise=normalise)
                layers += [nn.Conv2d(width, kept, 1, bias=not normalise), nn.AvgPool2d(2)]
                width = kept
            for _ in range((depth - 4) // step):
                layers.append(Dense(width, growth, bottleneck=bottleneck, normalise=normalise))
                width += growth
        layers += before(width, normalise=normalise)
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
        return he_initialised(nn.Sequential(*layers), seed)


def densenet40(
    channels: int = 3, classes: int = 10, seed: Seed = 0, *, normalise: bool = True
) -> nn.Sequential:
    """DenseNet40 with k = 12, no bottlenecks and no compression: a million parameters."""
    return densenet(40, 12, channels, classes, seed, normalise=normalise)
