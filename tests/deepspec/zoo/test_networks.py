"""The papers' nets: shapes, and parameter counts held against independent ones."""

import pytest
import torch
from torch import nn

from deepspec.zoo.densenets import densenet, densenet40
from deepspec.zoo.networks import he_initialised, mlp, vgg, vgg11, vgg16
from deepspec.zoo.resnets import Residual, resnet, resnet18, resnet50


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# ResNets: torchvision 0.28's counts less its 7 × 7 stem (9,408) plus a 3 × 3 one (1,728).
# DenseNet-BC (100, 12): pytorchcv 0.0.74. DenseNet (40, 12): Huang et al. print 1.0 million.
@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (vgg11, 28_165_898),
        (vgg16, 33_663_050),
        (resnet18, 11_181_642 - 9_408 + 1_728),
        (resnet50, 23_528_522 - 9_408 + 1_728),
        (densenet40, 1_019_722),
        (lambda: densenet(100, bottleneck=True, compression=0.5), 769_162),
        (lambda: mlp(1024, (2048,) * 8), 31_526_922),
        # Without batch normalisation: 2 numbers less for each of its channels, biases where
        # convolutions had none.
        (lambda: vgg11(normalise=False), 28_165_898 - 2 * (2752 + 8192)),
        (lambda: resnet18(normalise=False), 11_173_962 - 4_800),
    ],
)
def test_counts(build: object, expected: int) -> None:
    with torch.device("meta"):
        assert count(build()) == expected  # type: ignore[operator]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("build", [vgg11, vgg16, resnet18, resnet50, densenet40])
def test_shapes_at_32(build: object, channels: int, normalise: bool) -> None:
    with torch.device("meta"):
        model = build(channels, 7, normalise=normalise)  # type: ignore[operator]
        assert model(torch.zeros(2, channels, 32, 32)).shape == (2, 7)
    has_norm = any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in model.modules())
    assert has_norm == normalise


@pytest.mark.parametrize("normalise", [True, False])
def test_nets_start_finite_repeat_and_leave_the_global_generator(normalise: bool) -> None:
    images = torch.randn(4, 1, 8, 8)
    before = torch.get_rng_state()
    for build in (
        lambda: resnet((1, 1), 1, 3, seed=2, width=4, normalise=normalise),
        lambda: resnet((1, 1), 1, 3, seed=2, width=4, bottleneck=True, normalise=normalise),
        lambda: densenet(10, 4, 1, 3, seed=2, normalise=normalise),
        lambda: vgg((4, "M"), 1, 8, (5,), 3, seed=2, normalise=normalise),
    ):
        left, right = build(), build()
        assert torch.equal(left(images), right(images))
        assert float(left(images).detach().abs().max()) < 10
    assert torch.equal(torch.get_rng_state(), before)


def test_a_residual_block_without_its_branch_is_its_shortcut() -> None:
    block = Residual(3, 3, 1, bottleneck=False, normalise=False)
    nn.init.zeros_(block.branch[-1][0].weight)
    nn.init.zeros_(block.branch[-1][0].bias)
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(block(x), x)


def test_the_papers_start() -> None:
    net = he_initialised(nn.Sequential(nn.Conv2d(8, 32, 3), nn.Linear(400, 300)), seed=1)
    assert float(net[0].weight.detach().std()) == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.05)
    assert float(net[1].weight.detach().std()) == pytest.approx(0.01, rel=0.02)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels a side, got 28"):
        vgg11(side=28)
    with pytest.raises(ValueError, match="3 n \\+ 4 layers, got 41"):
        densenet(41)
    with pytest.raises(ValueError, match="6 n \\+ 4 layers, got 4"):
        densenet(4, bottleneck=True)
