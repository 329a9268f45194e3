"""Data and one linear net, which every test here takes for the right answer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deepspec import GaussNewton, Problem


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    X = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return X.to(dtype), torch.arange(9) % 3


def made(kind: Callable[[], nn.Module], dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().to(dtype)


def linear() -> nn.Linear:
    return made(lambda: nn.Linear(4, 3))


def gauss_newton(model: nn.Module, given: object, **options: object) -> Tensor:
    return GaussNewton(Problem(model, given, **options)).to_dense()
