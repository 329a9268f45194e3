"""Residual nets for 32 × 32 images: a 3 × 3 stem, and no pooling before the blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from deepspec.seeds import Seed, whole_seed
from deepspec.zoo.networks import he_initialised


def convolution(
    inputs: int, outputs: int, size: int, stride: int = 1, *, normalise: bool
) -> nn.Sequential:
    """A convolution that keeps the image's size at stride 1, and its batch normalisation.

    Without normalisation it has a bias instead.
    """
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=not normalise)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs)) if normalise else nn.Sequential(conv)


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)), the block of He et al. (2016).

    Parameters
    ----------
    inputs, width
        Channels that come in, and those of the branch.
    stride
        2 halves the image.
    bottleneck
        1 × 1, 3 × 3, 1 × 1 convolutions to four times ``width``, and not two of 3 × 3.
    """

    def __init__(
        self, inputs: int, width: int, stride: int, *, bottleneck: bool, normalise: bool
    ) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            self.branch = nn.Sequential(
                convolution(inputs, width, 1, normalise=normalise),
                nn.ReLU(),
                convolution(width, width, 3, stride, normalise=normalise),
                nn.ReLU(),
                convolution(width, outputs, 1, normalise=normalise),
            )
        else:
            self.branch = nn.Sequential(
                convolution(inputs, width, 3, stride, normalise=normalise),
                nn.ReLU(),
                convolution(width, outputs, 3, normalise=normalise),
            )
        changes = stride > 1 or inputs != outputs
        self.shortcut: nn.Module = (
            convolution(inputs, outputs, 1, stride, normalise=normalise)
            if changes
            else nn.Identity()
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d k l"]:
        return relu(self.branch(x) + self.shortcut(x))


def resnet(
    blocks: Sequence[int],
    channels: int = 3,
    classes: int = 10,
    seed: Seed = 0,
    *,
    bottleneck: bool = False,
    normalise: bool = True,
    width: int = 64,
) -> nn.Sequential:
    """A 3 × 3 stem, four stages of residual blocks, the average over positions, a linear map.

    Parameters
    ----------
    blocks
        How many in each stage; each stage after the first halves the image and doubles the width.
    normalise
        Without batch normalisation the last convolution of every branch starts at zero (as in
        Zhang, Dauphin and Ma, 2019), or activations would double with every block.
    width
        Channels of the first stage.

    >>> net = resnet((1, 1), channels=1, width=4)
    >>> net(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(whole_seed(seed))
        layers: list[nn.Module] = [convolution(channels, width, 3, normalise=normalise), nn.ReLU()]
        inputs = width
        for stage, count in enumerate(blocks):
            for place in range(count):
                stride = 2 if stage > 0 and place == 0 else 1
                block = Residual(
                    inputs,
                    width * 2**stage,
                    stride,
                    bottleneck=bottleneck,
                    normalise=normalise,
                )
                layers.append(block)
                inputs = width * 2**stage * (4 if bottleneck else 1)
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
        net = he_initialised(nn.Sequential(*layers), seed)
        for part in net:
            if isinstance(part, Residual) and not normalise:
                last = [m for m in part.branch.modules() if isinstance(m, nn.Conv2d)][-1]
                nn.init.zeros_(last.weight)
        return net


def resnet18(
    channels: int = 3, classes: int = 10, seed: Seed = 0, *, normalise: bool = True
) -> nn.Sequential:
    """ResNet18 with the 3 × 3 stem: 11.2 million parameters."""
    return resnet((2, 2, 2, 2), channels, classes, seed, normalise=normalise)


def resnet50(
    channels: int = 3, classes: int = 10, seed: Seed = 0, *, normalise: bool = True
) -> nn.Sequential:
    """ResNet50 with the 3 × 3 stem: 23.5 million parameters."""
    return resnet((3, 4, 6, 3), channels, classes, seed, bottleneck=True, normalise=normalise)
