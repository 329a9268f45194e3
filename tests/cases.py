"""Small classifiers and data on which every operator is held against dense brute force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepspec import Problem


@dataclass(frozen=True)
class Case:
    """A net, its data, and batches of unequal size."""

    name: str
    model: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    labels: tuple[int, ...]
    num_classes: int
    batch_size: int

    def build(self, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = self.model().to(dtype)
            features = torch.randn(len(self.labels), *self.inputs, dtype=dtype)
            settle_batch_norm(model, features)
        return model.eval(), features, torch.tensor(self.labels)


def hold(problem: Problem, way: str = "layers") -> None:
    """From the next ``prepare`` on, hold what fits the budget, whether that pays or not."""
    kept = {"jacobian": way, "hessian": "linearised", "residual": "linearised"}
    problem.plan = {**problem.plan, **{f"{name}: kept": value for name, value in kept.items()}}


def settle_batch_norm(model: nn.Module, features: Tensor) -> None:
    """Running statistics and affine parameters that are not the trivial ones."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    model.train()
    with torch.no_grad():
        model(features)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2, stride=2, bias=False),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4, 4),
    )


class Attention(nn.Module):
    """Token embedding, one transformer layer, a tied use of one linear map, mean pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.block = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True)
        self.shared = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.block(self.embed(tokens))
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(hidden))))
        return self.head(hidden.mean(dim=1))


# Unequal classes; batches of unequal size; one class empty in "missing class".
CASES = [
    Case("mlp", mlp, (4,), (0, 0, 0, 1, 2, 2, 1, 0, 0), 3, 4),
    Case("convolutional", convolutional, (2, 4, 4), (3, 0, 1, 1, 2, 0, 1), 4, 3),
    Case("missing class", mlp, (4,), (0, 0, 2, 2, 0), 3, 2),
]
