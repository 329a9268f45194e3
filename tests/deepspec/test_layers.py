"""J v and Jᵀ r from layers' inputs and errors, against the dense Jacobian."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepspec import ClassStructure, GaussNewton, Problem
from deepspec.engine.autodiff import TransientJacobian
from deepspec.engine.layerwise_jacobian import LayeredJacobian
from tests import oracles
from tests.cases import hold
from tests.layered_cases import TimeFirst, built, dense_jacobian, example, problem_of, relative

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding=.same. with even"),
    # These nets pad their tokens, which forward mode gets wrong.
    pytest.mark.filterwarnings("ignore:forward mode and reverse mode:RuntimeWarning"),
]
# Every parameter of these nets belongs to a layer with a formula.
COVERED = [
    "mlp",
    "convolutional",
    "missing class",
    "language",
    "series",
    "grouped",
    "signal",
    "transposed",
]


def select(name: str) -> dict[str, object]:
    """All of θ, but for the one layer of "grouped" that has no formula."""
    return {"select": lambda n, _: not n.startswith("5.")} if name == "grouped" else {}


def jacobian(name: str) -> Tensor:
    """The dense Jacobian by the selected parameters."""
    model, _, _, _ = example(name)
    kept = [
        torch.full((parameter.numel(),), name != "grouped" or not n.startswith("5."))
        for n, parameter in model.named_parameters()
    ]
    return dense_jacobian(name)[:, torch.cat(kept)]


def layered(problem: Problem) -> LayeredJacobian:
    """Of all samples in one batch."""
    _, function = next(problem.functions())
    held = LayeredJacobian.of(function)
    assert held is not None
    return held


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("name", COVERED)
def test_products_are_those_of_the_dense_jacobian(name: str, columns: int) -> None:
    problem = problem_of(name, batch_size=99, **select(name))
    held, J = layered(problem), jacobian(name)
    generator = torch.Generator().manual_seed(columns)
    V = torch.randn(problem.size, columns, generator=generator).double()
    shape = (problem.num_samples, problem.num_classes, columns)
    R = torch.randn(*shape, generator=generator).double()
    assert relative(held.jvp_together(V).flatten(0, 1), J @ V) < 1e-13
    pulled = torch.ones(columns, problem.size).double()
    held.vjp_together(R, pulled)
    assert relative(pulled - 1, (J.T @ R.flatten(0, 1)).T) < 1e-13
    single = torch.zeros(problem.size).double()
    held.vjp(R[:, :, 0], single)
    assert relative(single, J.T @ R[:, :, 0].flatten()) < 1e-13
    assert relative(held.jvp(V[:, 0]).flatten(), J @ V[:, 0]) < 1e-13


@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("kept", ["weight", "bias"])
def test_weights_or_biases_alone(name: str, kept: str) -> None:
    chosen = select(name).get("select", lambda n, _: True)
    problem = problem_of(name, batch_size=99, select=lambda n, p: n.endswith(kept) and chosen(n, p))
    held = layered(problem)
    _, function = next(problem.functions())
    direct = TransientJacobian(function)
    v = torch.linspace(-1, 1, problem.size, dtype=torch.float64)
    r = torch.linspace(-1, 2, problem.num_samples * problem.num_classes, dtype=torch.float64)
    r = r.view(problem.num_samples, -1)
    if name != "language":  # forward mode forgets padding_idx there
        assert relative(held.jvp(v), direct.jvp(v)) < 1e-12
    found, expected = torch.zeros_like(v), torch.zeros_like(v)
    held.vjp(r, found)
    direct.vjp(r, expected)
    assert relative(found, expected) < 1e-12
    assert abs(float((held.jvp(v) * r).sum() - found @ v)) < 1e-12


def test_float32_agrees_to_its_precision() -> None:
    for name in ("mlp", "convolutional", "language"):
        held = layered(problem_of(name, batch_size=99, dtype=torch.float32))
        v = torch.linspace(-1, 1, held.space.size)
        expected = jacobian(name) @ v.double()
        assert relative(held.jvp(v).double().flatten(), expected) < 1e-5


class Residual(nn.Module):
    """Two branches into one sum: both see the same errors."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1, bias=False)
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(x) + self.norm(self.second(x)))
        return self.head(hidden.mean(dim=(2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_errors_that_layers_share_are_kept_once(dtype: torch.dtype) -> None:
    assert [len(g.members) for g in layered(problem_of("mlp")).groups] == [1, 1, 1]
    assert [len(g.members) for g in layered(problem_of("convolutional")).groups] == [1, 2, 2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        X, y = torch.randn(7, 2, 3, 3).double(), torch.arange(7) % 3
        model = built(Residual(), X)
    with torch.no_grad():
        model.norm.weight[1] = 0.0  # nothing reaches this channel of the second branch
    problem = Problem(model, (X, y), dtype=dtype)
    held = layered(problem)
    assert [len(group.members) for group in held.groups] == [1, 3]
    J = oracles.jacobian(model, X).flatten(0, 1)
    v = torch.linspace(-1, 1, problem.size, dtype=dtype)
    close = 1e-13 if dtype == torch.float64 else 1e-5
    assert relative(held.jvp(v).double().flatten(), J @ v.double()) < close


@pytest.mark.parametrize("name", ["attention", "shared", "grouped"])
def test_a_net_with_other_parameters_is_left_to_others(name: str) -> None:
    _, function = next(problem_of(name).functions())
    assert LayeredJacobian.of(function) is None


def test_held_products_change_nothing() -> None:
    for name in ("mlp", "convolutional"):
        problem = problem_of(name, memory_budget=10**8)
        G = GaussNewton(problem)
        expected = G.to_dense()
        hold(problem, "layers")
        G.prepare(1)
        batches = -(-problem.num_samples // example(name)[3])
        assert problem.plan["jacobian: batches held"] == batches
        assert relative(G.to_dense(), expected) < 1e-13
        parts = ClassStructure(problem).named().values()
        assert relative(sum(part.to_dense() for part in parts), expected) < 1e-13


def test_layers_that_mix_up_samples_are_not_believed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, labels = torch.randn(4, 2, 4).double(), torch.tensor([0, 1, 2, 0])
        model = built(TimeFirst(), x)
    problem = Problem(model, (x, labels), batch_size=2)
    hold(problem, "layers")
    G = GaussNewton(problem)
    G.prepare(1)
    assert problem.plan["jacobian: batches held"] == 0
    assert relative(G.to_dense(), oracles.gauss_newton(model, x)) < 1e-12


class Branching(nn.Module):
    """Takes one of two ways, by what is in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        way = self.one if float(x[0, 0]) > 0 else self.other
        return self.head(torch.tanh(way(x)))


def test_a_batch_that_takes_another_way_through_the_net() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, X = Branching().double(), torch.randn(8, 3).double()
    X[:, 0] = F.pad(torch.ones(4), (0, 4), value=-1.0)
    problem = Problem(model, (X, torch.arange(8) % 3), batch_size=4)
    G = GaussNewton(problem)
    expected = G.to_dense()
    for way in ("layers", "linearised"):
        hold(problem, way)
        G.prepare(1)
        assert relative(G.to_dense(), expected) < 1e-13
