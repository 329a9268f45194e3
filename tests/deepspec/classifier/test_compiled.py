"""Compiled models are taken as they were before, and it is said so."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deepspec import Hessian, Problem
from tests.deepspec.classifier.nets import data, made

X, y = data()


def net() -> nn.Sequential:
    return made(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def whole() -> nn.Module:
    return torch.compile(net(), backend="aot_eager")


def in_place() -> nn.Module:
    model = net()
    model.compile(backend="aot_eager")
    return model


def part() -> nn.Module:
    model = net()
    model[0] = torch.compile(model[0], backend="aot_eager")
    return model


@pytest.mark.parametrize("build", [whole, in_place, part])
@pytest.mark.parametrize("run", [False, True], ids=["before a run", "after a run"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_has_the_hessian_of_the_original(
    build: Callable[[], nn.Module], run: bool
) -> None:
    model = build()
    if run:
        model(X)
    with pytest.warns(RuntimeWarning, match="torch.compile is by-passed for"):
        problem = Problem(model, (X, y))
    v = torch.linspace(-1, 1, problem.size, dtype=torch.float64)
    assert torch.allclose(Hessian(problem) @ v, Hessian(Problem(net(), (X, y))) @ v, atol=1e-15)
    if build is not part:
        assert problem.space.names[0] == "0.weight"


@torch.compile(backend="aot_eager")
def activation(x: Tensor) -> Tensor:
    return torch.tanh(x)


class InsideForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[2](activation(self.inner[0](x)))


def test_a_compiled_function_inside_runs_as_it_was() -> None:
    problem = Problem(InsideForward(), (X, y))
    v = torch.linspace(-1, 1, problem.size, dtype=torch.float64)
    assert torch.allclose(Hessian(problem) @ v, Hessian(Problem(net(), (X, y))) @ v, atol=1e-15)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused() -> None:
    with pytest.raises(TypeError, match="TorchScript"):
        Problem(torch.jit.script(net()), (X, y))
