"""Losses one by one against PyTorch's derivatives, and what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepspec import Problem
from deepspec.layerwise import Layers
from deepspec.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Loss,
    MultiLabelCrossEntropy,
    SquaredError,
    as_loss,
)
from tests.row_cases import labelled, mlp, transformer

POSITIVE = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)


def outputs(rows: int = 4, width: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(rows, width, generator=generator, dtype=torch.float64)


HOT = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]], dtype=torch.float64)
SOFT = outputs().flip(0).softmax(dim=1)
LOSSES = [
    (CrossEntropy(), torch.tensor([1, 0, 2, 1])),
    (CrossEntropy(label_smoothing=0.3), torch.tensor([1, 0, 2, 1])),
    (CrossEntropy(POSITIVE, label_smoothing=0.3), torch.tensor([1, 0, 2, 1])),
    (CrossEntropy(), SOFT),
    (SquaredError(), SOFT),
    (MultiLabelCrossEntropy(POSITIVE), HOT),
    (MultiLabelCrossEntropy(), SOFT),
]


@pytest.mark.parametrize(("loss", "targets"), LOSSES, ids=lambda value: repr(value)[:30])
def test_residual_hessian_and_root_are_derivatives_of_the_value(
    loss: Loss, targets: Tensor
) -> None:
    f = outputs()
    prepared = loss.prepared(targets, 3, torch.float64)
    given = prepared if not loss.has_classes else targets
    gradient = torch.func.grad(lambda z: loss.value(z, prepared).sum())(f)
    assert torch.allclose(loss.residual(f, prepared), gradient, atol=1e-12)
    each = [
        torch.func.hessian(lambda z, i=i: loss.value(z[None], prepared[i : i + 1]).sum())(f[i])
        for i in range(4)
    ]
    u = outputs(4, 6).view(4, 3, 2)
    state = loss.state(f)
    expected = torch.stack([H @ columns for H, columns in zip(each, u, strict=True)])
    assert torch.allclose(loss.hessian(state, given, u), expected, atol=1e-12)
    back = loss.root(state, given, loss.root_transposed(state, given, u))
    assert torch.allclose(back, expected, atol=1e-12)


def test_near_certainty_keeps_its_digits() -> None:
    f = torch.tensor([[60.0, 0.0]], dtype=torch.float64)
    loss, label = CrossEntropy(), torch.tensor([0])
    tiny = float(torch.exp(torch.tensor(-60.0, dtype=torch.float64)))
    assert float(loss.value(f, label)) == pytest.approx(tiny, rel=1e-12)
    residual = loss.residual(f, loss.prepared(label, 2, torch.float64))
    assert float(residual[0, 0]) == pytest.approx(-tiny, rel=1e-12)


def test_pytorchs_modules_are_recognised() -> None:
    assert isinstance(as_loss(nn.BCEWithLogitsLoss(), 1), BinaryCrossEntropy)
    assert isinstance(as_loss(nn.BCEWithLogitsLoss(), 2), MultiLabelCrossEntropy)
    own = SquaredError()
    assert as_loss(own, 2) is own
    assert "SquaredError" in own.fingerprint()
    assert "pos_weight=2" in repr(BinaryCrossEntropy(2.0))

    class Changed(nn.CrossEntropyLoss):
        def forward(self, *args: Any) -> Tensor:
            return 2 * super().forward(*args)

    with pytest.raises(TypeError, match="expected a loss, got Changed"):
        as_loss(Changed(), 3)


def build(width: int, loss: object, change: Callable[[Tensor], Tensor]) -> Callable[[], object]:
    def work() -> Problem:
        net, inputs, labels = labelled(width, binary=True)
        return Problem(net, (inputs, change(labels)), loss=loss)

    return work


BCE = nn.BCEWithLogitsLoss
REFUSED = [
    (build(2, nn.MSELoss(), lambda y: y * torch.nan), "NaN or infinity in row 0"),
    (build(2, nn.MSELoss(), lambda y: y + 0j), "real targets"),
    (build(2, nn.MSELoss(), lambda y: y[:, :1]), r"shape \(6, 2\), got \(6, 1\)"),
    (build(1, BCE(), lambda y: y + 1), r"in 0\.\.1, got 1"),
    (build(2, BCE(pos_weight=torch.ones(3)), lambda y: y), "pos_weight for 2 logits, got 3"),
    (build(2, BCE(weight=torch.ones(2)), lambda y: y), "one for each number"),
    (build(3, nn.CrossEntropyLoss(), lambda y: y - 0.5), "soft labels as probabilities"),
    (lambda: BinaryCrossEntropy(0.0), "pos_weight above 0"),
    (lambda: CrossEntropy(label_smoothing=2.0), r"label_smoothing in 0\.\.1"),
    (lambda: CrossEntropy(-torch.ones(3)), "class weights"),
    (lambda: CrossEntropy(torch.zeros(3)), "class weights"),
    (lambda: CrossEntropy(torch.tensor([1.0, torch.nan])), "class weights"),
]


@pytest.mark.parametrize(("work", "words"), REFUSED)
def test_what_a_loss_refuses(work: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        work()


def test_soft_labels_that_are_classes_in_some_batches_are_read() -> None:
    net, inputs = mlp(1)
    labels = torch.tensor([0.0, 1, 1, 0.3, 1, 0.6]).double()
    problem = Problem(net, (inputs, labels), loss=BCE(), batch_size=2)
    expected = F.binary_cross_entropy_with_logits(net(inputs)[:, 0].detach(), labels)
    assert problem.loss == pytest.approx(float(expected), abs=1e-12)
    assert problem.has_soft_labels


class Shifting(torch.utils.data.Dataset):
    """Gives other labels, or other shapes, after the first pass."""

    def __init__(self, later: Callable[[Tensor], Tensor]) -> None:
        _, self.tokens, self.labels = transformer()
        self.later, self.given = later, 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.given += 1
        labels = self.labels[index]
        return self.tokens[index], labels if self.given <= 3 else self.later(labels)


@pytest.mark.parametrize("later", [lambda y: y.clamp(max=3), lambda y: y * 0 + 60])
def test_labels_that_change_between_passes_are_refused(later: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="the same data at every pass"):
        Problem(transformer()[0], Shifting(later))


def test_layers_want_one_label_a_sample_counted_alike() -> None:
    net, tokens, labels = transformer()
    with pytest.raises(ValueError, match=r"one label a sample.*deepspec\.block_spectra"):
        Layers(Problem(net, (tokens, labels), verify=False))
    plain, inputs = mlp(3)
    weights = torch.arange(6.0)
    with pytest.raises(ValueError, match="all counted alike"):
        Layers(Problem(plain, (inputs, torch.arange(6) % 3), row_weights=weights))
    with pytest.raises(ValueError, match="class structure needs"):
        Layers(Problem(plain, (inputs, inputs), loss=nn.MSELoss()))
