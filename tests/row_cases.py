"""Nets whose samples have several rows, and dense references made from PyTorch's own losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

V, WIDTH, LENGTH = 50, 4, 5


class TinyTransformer(nn.Module):
    """Two causal layers and a head that is the embedding itself."""

    def __init__(self, vocabulary: int = V) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, WIDTH)
        self.place = nn.Parameter(torch.randn(16, WIDTH))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, 2, 6, dropout=0.0, batch_first=True) for _ in range(2)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        hidden = self.embed(tokens) + self.place[:length]
        future = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        for block in self.blocks:
            hidden = block(hidden, src_mask=future)
        return hidden @ self.embed.weight.T


class Segmenter(nn.Sequential):
    """Classes of pixels: (b, 2, h, w) to (b, C, h, w)."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__(
            nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, classes, 1), nn.Softplus()
        )


def transformer() -> tuple[nn.Module, Tensor, Tensor]:
    """A net, tokens (3, 5), and labels of which six are padding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = TinyTransformer().double().eval()
        tokens = torch.randint(0, V, (3, LENGTH))
        labels = torch.randint(0, 4, (3, LENGTH)) * 7
    labels[0, 3:] = labels[1, 1:] = -100
    return net, tokens, labels


def segmenter(classes: int = 3) -> tuple[nn.Module, Tensor, Tensor]:
    """A net, images (3, 2, 2, 3), and labels of pixels of which one is ignored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        net = Segmenter(classes).double().eval()
        images = torch.randn(3, 2, 2, 3, dtype=torch.float64)
        labels = torch.randint(0, 3, (3, 2, 3))
    labels[1, 0, 2] = -100
    return net, images, labels


@dataclass(frozen=True, eq=False)
class Form:
    """A problem in one form, and the loss as PyTorch would compute it from the net's output."""

    name: str
    build: Callable[[], tuple[nn.Module, Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    options: dict[str, Any] = field(default_factory=dict)


def dense(form: Form, net: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Loss, gradient, Hess, G and E of a loss of the output, by differentiating it as it is."""
    names = [name for name, _ in net.named_parameters()]
    shapes = [p.shape for _, p in net.named_parameters()]
    theta = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    counts = [shape.numel() for shape in shapes]

    def output(t: Tensor) -> Tensor:
        parts = t.split(counts)
        tensors = {n: v.view(s) for n, v, s in zip(names, parts, shapes, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional_call(net, tensors, (inputs,))

    def loss(t: Tensor) -> Tensor:
        return form.loss(output(t), labels)

    at = output(theta).detach()
    J = torch.autograd.functional.jacobian(output, theta, vectorize=True).flatten(0, -2)
    K = torch.func.hessian(lambda z: form.loss(z.view(at.shape), labels))(at.flatten())
    hess = torch.autograd.functional.hessian(loss, theta, vectorize=True)
    G = J.T @ K @ J
    return {
        "loss": form.loss(at, labels),
        "gradient": torch.autograd.functional.jacobian(loss, theta),
        "Hess": hess,
        "G": G,
        "E": hess - G,
        "J": J.view(*at.shape, -1),
        "outputs": at,
    }


WEIGHT = torch.linspace(0.5, 2.0, V, dtype=torch.float64)


def token_loss(**options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """``cross_entropy`` of (b, T, V) logits."""
    return lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten(0, 1), **options)


def soft_tokens() -> tuple[nn.Module, Tensor, Tensor]:
    net, tokens, _ = transformer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        labels = torch.randn(*tokens.shape, V, dtype=torch.float64).softmax(dim=-1)
    return net, tokens, labels


def soft_pixels() -> tuple[nn.Module, Tensor, Tensor]:
    net, images, _ = segmenter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        labels = torch.randn(3, 3, 2, 3, dtype=torch.float64).softmax(dim=1)
    return net, images, labels


def numbers(net: nn.Module, inputs: Tensor, *, binary: bool) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        values = torch.randn(net(inputs).shape, dtype=torch.float64)
    return (values > 0).double() if binary else values


def mlp(outputs: int) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs)).double()
        return net, torch.randn(6, 3, dtype=torch.float64)


def labelled(outputs: int, *, binary: bool) -> tuple[nn.Module, Tensor, Tensor]:
    net, inputs = mlp(outputs)
    return net, inputs, numbers(net, inputs, binary=binary)


def per_sequence(z: Tensor, y: Tensor) -> Tensor:
    return torch.stack([F.cross_entropy(a, b) for a, b in zip(z, y, strict=True)]).mean()


ROW_WEIGHTS = torch.linspace(0.0, 3.0, 15, dtype=torch.float64).view(3, 5)


def weighed(z: Tensor, y: Tensor) -> Tensor:
    each = F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none")
    weights = ROW_WEIGHTS.flatten() * (y.flatten() != -100)
    return (each * weights).sum() / weights.sum()


CE, BCE = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss
POSITIVE = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
FORMS = [
    Form("padding", transformer, token_loss()),
    Form("weighted", transformer, token_loss(weight=WEIGHT), {"loss": CE(WEIGHT)}),
    Form(
        "smoothed",
        transformer,
        token_loss(weight=WEIGHT, label_smoothing=0.2),
        {"loss": CE(WEIGHT, label_smoothing=0.2)},
    ),
    Form("soft", soft_tokens, token_loss(weight=WEIGHT), {"loss": CE(WEIGHT)}),
    Form(
        "soft and smoothed",
        soft_tokens,
        token_loss(label_smoothing=0.1),
        {"loss": CE(label_smoothing=0.1)},
    ),
    Form("row weights", transformer, weighed, {"row_weights": ROW_WEIGHTS}),
    Form("sequences", transformer, per_sequence, {"mean_over": "sequences"}),
    Form("pixels", segmenter, F.cross_entropy, {"class_dim": 1}),
    Form("soft pixels", soft_pixels, F.cross_entropy, {"class_dim": 1}),
    Form(
        "ignored",
        lambda: (*mlp(3), torch.tensor([0, 2, -1, 1, 0, -1])),
        lambda z, y: F.cross_entropy(z, y, ignore_index=-1),
        {"loss": CE(ignore_index=-1)},
    ),
    Form("squares", lambda: labelled(2, binary=False), F.mse_loss, {"loss": nn.MSELoss()}),
    Form("one number", lambda: labelled(1, binary=False), F.mse_loss, {"loss": nn.MSELoss()}),
    Form(
        "sigmoid",
        lambda: labelled(1, binary=True),
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, pos_weight=POSITIVE[2:]),
        {"loss": BCE(pos_weight=POSITIVE[2:])},
    ),
    Form(
        "sigmoids",
        lambda: labelled(3, binary=True),
        lambda z, y: F.binary_cross_entropy_with_logits(z, y, pos_weight=POSITIVE),
        {"loss": BCE(pos_weight=POSITIVE)},
    ),
]
