"""Directions are laid out as the parameters are: no tensor gets a buffer of p zeros."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from deepspec import GaussNewton, Hessian, Problem
from deepspec.engine.autodiff import HeldHessian, LinearisedJacobian
from tests.cases import hold


class Zeros(TorchDispatchMode):
    """Counts the buffers, larger than the parameter, made for tangents that are not aligned."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "_new_zeros_with_same_feature_meta" in str(func):
            storage = args[1].untyped_storage().nbytes()
            self.count += storage > args[1].numel() * args[1].element_size()
        return func(*args, **(kwargs or {}))


def net() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.ReLU())
        model.append(nn.Linear(5, 3))
        return model.double(), (torch.randn(6, 4).double(), torch.arange(6) % 3)


@pytest.mark.parametrize("kind", [GaussNewton, Hessian])
@pytest.mark.parametrize("budget", [0, 2**24])
def test_no_layout_of_columns_makes_buffers(kind: type, budget: int) -> None:
    problem = Problem(*net(), memory_budget=budget)
    operator = kind(problem)
    if budget:
        hold(problem, "linearised")
        operator.prepare(1)
    block = torch.randn(2, problem.size, dtype=torch.float64)
    rows = torch.stack([operator @ row.clone() for row in block], dim=1)
    # The choices made by trying are made before the count.
    _ = operator @ block.T, operator @ block.T.contiguous()
    with Zeros() as zeros:
        found = [
            torch.stack([operator @ row for row in block], dim=1),
            operator @ block.T,
            operator @ block.T.contiguous(),
            (operator @ block[0][:, None].expand(-1, 2))[:, :1].expand(-1, 2),
        ]
    assert zeros.count == 0
    for columns in found[:3]:
        assert float((columns - rows).abs().max()) < 1e-14
    assert float((found[3] - rows[:, :1]).abs().max()) < 1e-14


def test_tracing_makes_no_buffers() -> None:
    problem = Problem(*net())
    rows, function = next(problem.functions())
    with Zeros() as zeros:
        LinearisedJacobian(function)
        HeldHessian(function, Hessian(problem).logit_gradient(rows, function))
    assert zeros.count == 0
