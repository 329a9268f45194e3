"""The plain nets of the papers and of the benchmarks: perceptrons and VGG, small enough to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from deepspec.seeds import Seed, whole_seed

Net = TypeVar("Net", bound=nn.Module)


def mlp(
    inputs: int = 64,
    widths: Sequence[int] = (64, 64),
    classes: int = 10,
    seed: Seed = 0,
    *,
    normalise: bool = True,
) -> nn.Sequential:
    """Linear, batch normalisation, ReLU for each width, then a linear map (Papyan 2020, §7).

    With ``normalise=False`` nothing stands between a linear map and its ReLU.

    >>> sum(p.numel() for p in mlp(4, (8,), 3).parameters())
    83
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole_seed(seed))
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers.append(nn.Linear(inputs, width))
            layers += [nn.BatchNorm1d(width), nn.ReLU()] if normalise else [nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, classes))


def vgg(
    plan: Sequence[int | str],
    channels: int = 3,
    side: int = 32,
    hidden: Sequence[int] = (),
    classes: int = 10,
    seed: Seed = 0,
    *,
    normalise: bool = True,
) -> nn.Sequential:
    """3 × 3 convolutions with batch normalisation and ReLU; ``"M"`` halves the image.

    As in Papyan (2020) D.3, batch normalisation stands where VGG had dropout.

    Raises
    ------
    ValueError
        If the image is halved to nothing.

    >>> net = vgg((8, "M"), channels=1, side=8)
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    halvings = sum(isinstance(width, str) for width in plan)
    if side < 2**halvings:
        raise ValueError(
            f"expected images of at least {2**halvings} pixels a side, got {side}: they are "
            f"halved {halvings} times; pad them"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole_seed(seed))
        layers: list[nn.Module] = []
        for width in plan:
            if isinstance(width, str):
                layers.append(nn.MaxPool2d(2))
                side //= 2
            else:
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width), nn.ReLU()] if normalise else [nn.ReLU()]
                channels = width
        head = mlp(channels * side * side, hidden, classes, seed, normalise=normalise)
        return nn.Sequential(*layers, *head)


def small_vgg(
    channels: int = 3, side: int = 32, classes: int = 10, seed: Seed = 0, *, normalise: bool = True
) -> nn.Sequential:
    """Four convolutions, for benchmarks: 0.26 million parameters on 3 × 32 × 32 images."""
    plan = (32, "M", 64, "M", 128, 128, "M")
    return vgg(plan, channels, side, (), classes, seed, normalise=normalise)


def convnet(
    channels: int = 1, side: int = 8, classes: int = 10, seed: Seed = 0, *, normalise: bool = True
) -> nn.Sequential:
    """Two convolutions, for the digits."""
    return vgg((8, "M", 16, "M"), channels, side, (), classes, seed, normalise=normalise)


VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG16 = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M")


def vgg11(
    channels: int = 3, classes: int = 10, seed: Seed = 0, *, side: int = 32, normalise: bool = True
) -> nn.Sequential:
    """VGG11 for 32 × 32 images, with the 28 million parameters of the papers' nets."""
    net = vgg(VGG11, channels, side, (4096, 4096), classes, seed, normalise=normalise)
    return he_initialised(net, seed)


def vgg16(
    channels: int = 3, classes: int = 10, seed: Seed = 0, *, side: int = 32, normalise: bool = True
) -> nn.Sequential:
    """VGG16 for 32 × 32 images, with VGG11's two hidden layers of 4096."""
    net = vgg(VGG16, channels, side, (4096, 4096), classes, seed, normalise=normalise)
    return he_initialised(net, seed)


def he_initialised(model: Net, seed: Seed) -> Net:
    """Convolutions from N(0, 2/fan out) (He et al., 2015), linear maps from N(0, 0.01²), no biases.

    The start of the papers' nets; the model is changed in place and returned.

    >>> net = he_initialised(nn.Linear(1000, 100), seed=0)
    >>> round(float(net.weight.detach().std()), 3), int(net.bias.count_nonzero())
    (0.01, 0)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole_seed(seed))
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
