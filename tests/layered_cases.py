"""Nets whose layers have formulas, and nets whose layers have not, with their dense Jacobians."""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepspec import Problem
from tests import oracles
from tests.cases import CASES, Attention, settle_batch_norm


class Shared(nn.Module):
    """One weight in two modules, one read by a function outside its module, one used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4, padding_idx=1)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(3, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(self.embed(tokens)))))
        return F.linear(hidden.mean(dim=1), self.embed.weight)


class Language(nn.Module):
    """Sequences through layers that are each used once, with an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 4, padding_idx=1)
        self.norm = nn.LayerNorm(4)
        self.up, self.down = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(F.relu_(self.up(input=self.norm(self.embed(tokens))))).mean(dim=1)


class TimeFirst(nn.Module):
    """Hands its layer sequences with time before the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(x.transpose(0, 1))).transpose(0, 1).mean(dim=1))


class Conv1D(nn.Module):
    """As Hugging Face has it: a linear map that keeps its weight transposed."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight = nn.Parameter(torch.randn(nx, nf) / nx**0.5)
        self.bias = nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(shape)


Conv1D.__module__, Conv1D.__qualname__ = "transformers.pytorch_utils", "Conv1D"


def signal() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.BatchNorm1d(6),
        nn.Tanh(),
        nn.Conv1d(6, 3, 2, padding="same", bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, 2, padding="same", bias=False),
        nn.Conv2d(4, 4, 1, padding="valid"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.Flatten(),
        nn.LazyLinear(6),
        nn.BatchNorm1d(6),
        nn.Tanh(),
        nn.LayerNorm(6),
        nn.Linear(6, 3),
    )


def built(model: nn.Module, inputs: Tensor, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model.to(torch.float64)
        settle_batch_norm(model, inputs)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, 1.0, 0.2)
                nn.init.normal_(module.bias, 0.0, 0.2)
    return model.eval()


def example(name: str) -> tuple[nn.Module, Tensor, Tensor, int]:
    """A model, its data and a batch size that does not divide them."""
    for case in CASES:
        if case.name == name:
            return (*case.build(), case.batch_size)
    labels = torch.tensor([0, 1, 2, 0, 1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tokens, images = torch.randint(5, (5, 3)), torch.randn(5, 4, 5, 6).double()
        series, waves = torch.randn(5, 7, 4).double(), torch.randn(5, 4, 9).double()
        make: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
            "attention": (Attention, tokens),
            "shared": (Shared, tokens),
            "language": (Language, tokens),
            "grouped": (grouped, images),
            "signal": (signal, waves),
            "transposed": (
                lambda: nn.Sequential(Conv1D(5, 4), nn.Tanh(), Conv1D(3, 5), Mean()),
                series,
            ),
            "series": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), Mean()), series),
        }
        kind, inputs = make[name]
        model = built(kind(), inputs)
    return model, inputs, labels, 2


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


NAMES = [
    *(case.name for case in CASES),
    "attention",
    "shared",
    "language",
    "grouped",
    "series",
    "signal",
    "transposed",
]


def problem_of(name: str, **options: object) -> Problem:
    model, features, labels, batch_size = example(name)
    classes = int(labels.max()) + 1 if name != "shared" else 5
    options = {"batch_size": batch_size, "num_classes": max(3, classes), **options}
    with warnings.catch_warnings():
        # One of them has a layer that is not used, on purpose.
        warnings.filterwarnings("ignore", message="the logits do not depend on unused")
        return Problem(model, (features, labels), **options)


@cache
def dense_jacobian(name: str) -> Tensor:
    model, features, _, _ = example(name)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return oracles.jacobian(model, features).flatten(0, 1)


@cache
def dense_theta(name: str) -> Tensor:
    return dense_jacobian(name) @ dense_jacobian(name).T


def relative(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())
