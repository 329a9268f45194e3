"""Derivatives that are not derivatives: caught, named, and gone around where that is possible."""

import re

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from deepspec import GaussNewton, Hessian, Problem, attribute
from deepspec.engine import double_precision
from deepspec.engine.autodiff import ReverseOverForward, ReverseOverReverse
from deepspec.engine.double_precision import DoubleFunction
from deepspec.engine.errors import NoSecondDerivative, WrongDerivative, WrongSecondDerivative
from deepspec.engine.verification import second_order_is_wrong
from tests import oracles


class Act(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Right(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0].cos() * g


class Once(Right):
    backward = staticmethod(once_differentiable(lambda ctx, g: ctx.saved_tensors[0].cos() * g))


class Detached(Right):
    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0].cos() * g.detach()


class WrongSign(Right):
    @staticmethod
    def backward(ctx, g):
        return -ctx.saved_tensors[0].cos() * g


class Scaled(Right):
    """Wrong by a thousandth only."""

    @staticmethod
    def backward(ctx, g):
        return 1.001 * ctx.saved_tensors[0].cos() * g


class StraightThrough(Right):
    @staticmethod
    def forward(ctx, x):
        return (4 * x).round() / 4

    @staticmethod
    def backward(ctx, g):
        return g


class WrongTangent(Right):
    """Backward is right, and may be differentiated; the rule of forward mode is not."""

    @staticmethod
    def jvp(ctx, t):
        return 2 * ctx.saved_tensors[0].cos() * t


class Intermediate(Right):
    @staticmethod
    def forward(ctx, x):
        ctx.slope = x.cos()
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return ctx.slope * g


class DetachedSlope(Right):
    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0].detach().cos() * g


class Inner(torch.autograd.Function):
    """A slope whose own rule is wrong."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.cos()

    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0].sin() * g


class WrongTwice(Right):
    @staticmethod
    def backward(ctx, g):
        return Inner.apply(ctx.saved_tensors[0]) * g


def data(n: int = 12, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    X = torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return X.to(dtype), torch.arange(n) % 3


def net(*middle: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 5), *middle, nn.Linear(5, 3)).double()


@pytest.mark.parametrize("kind", [WrongSign, Scaled, StraightThrough])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_first_derivative_is_refused_by_name(kind, dtype) -> None:
    with pytest.raises(WrongDerivative, match=r"1 \(Act\).*backward"):
        Problem(net(Act(kind.apply)).to(dtype), data(dtype=dtype))


@pytest.mark.parametrize("kind", [Intermediate, DetachedSlope, WrongTwice])
@pytest.mark.parametrize("n", [4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_wrong_second_derivative_is_refused_by_name(kind, n: int, dtype) -> None:
    model = net(Act(kind.apply)).to(dtype)
    problem = Problem(model, data(n, dtype))
    G = GaussNewton(problem).to_dense()
    exact = oracles.gauss_newton(net(Act(torch.sin)), data(n)[0]) if n == 4 else G.double()
    assert float((G.double() - exact).abs().max()) < 1e-6
    with pytest.raises(WrongSecondDerivative, match=r"1 \(Act\).*First derivatives were checked"):
        _ = Hessian(problem) @ torch.ones(problem.size, dtype=dtype)


@pytest.mark.parametrize("kind", [Right, WrongTangent])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_right_way_is_taken_where_there_is_one(kind) -> None:
    problem = Problem(net(Act(kind.apply)), data())
    plain = net(Act(torch.sin))
    G, H = GaussNewton(problem).to_dense(), Hessian(problem).to_dense()
    assert float((G - oracles.gauss_newton(plain, data()[0])).abs().max()) < 1e-13
    assert float((H - oracles.hessian(plain, *data())).abs().max()) < 1e-13


class Prototypes(nn.Module):
    """Distances from learnt points; PyTorch's function cannot be differentiated twice."""

    def __init__(self, written_out: bool) -> None:
        super().__init__()
        self.points, self.written_out = nn.Parameter(torch.ones(3, 5).tril()), written_out

    def forward(self, x: Tensor) -> Tensor:
        if self.written_out:
            return -(x[:, None] - self.points).square().sum(2).sqrt()
        return -torch.cdist(x, self.points)


class Bag(nn.Module):
    def __init__(self, written_out: bool) -> None:
        super().__init__()
        self.inner = nn.Embedding(7, 4) if written_out else nn.EmbeddingBag(7, 4, mode="mean")
        self.written_out = written_out

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.inner(tokens)
        return found.mean(1) if self.written_out else found


def once(written_out: bool) -> tuple[nn.Module, Tensor]:
    return net(Act(torch.sin if written_out else Once.apply)), data()[0]


def detached(written_out: bool) -> tuple[nn.Module, Tensor]:
    return net(Act(torch.sin if written_out else Detached.apply)), data()[0]


def bags(written_out: bool) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(Bag(written_out), nn.Linear(4, 3)).double()
        return model, torch.randint(0, 7, (12, 5))


def prototypes(written_out: bool) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Prototypes(written_out)).double()
        return model, data()[0]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (once, r"1 \(Act\)"),
        (detached, r"1 \(Act\)"),
        (bags, r"inner \(EmbeddingBag\).*the same reduction"),
        (prototypes, r"2 \(Prototypes\).*use_mm_for_euclid_dist"),
    ],
)
def test_what_can_be_differentiated_once_has_its_gauss_newton_side(build, words: str) -> None:
    """J v row by row; the Hessian is missing in words, and everything else is attributed."""
    model, X = build(written_out=False)
    y = torch.arange(len(X)) % 3
    with pytest.warns(RuntimeWarning, match="nor in reverse mode twice"):
        problem = Problem(model, (X, y))
    assert problem.plan["forward mode"] == "by rows"
    right = Problem(build(written_out=True)[0], (X, y))
    G, expected = GaussNewton(problem).to_dense(), GaussNewton(right).to_dense()
    assert float((G - expected).abs().max()) < 1e-12
    assert float(G.trace()) > 0.01
    with pytest.raises(NoSecondDerivative, match=words):
        _ = Hessian(problem) @ torch.ones(problem.size).double()
    split = attribute(problem, draws=2, probes=1, steps=5).train
    assert not split.hessian_spectra
    assert re.search(words, split.without_hessian)
    assert abs(split.trace - float(G.trace())) < 1e-9


@pytest.mark.parametrize("kind", [Right, Intermediate, DetachedSlope, WrongSign, Scaled])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_of_large_tensors_some_columns_tell(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(double_precision, "LARGE", 0)
    monkeypatch.setattr(double_precision, "ENTRIES", 6)
    model = net(Act(kind.apply), nn.LayerNorm(5).double())
    if kind in (WrongSign, Scaled):
        with pytest.raises(WrongDerivative, match=r"1 \(Act\)"):
            Problem(model, data())
        return
    problem = Problem(model, data())
    double = DoubleFunction.from_function(next(problem.functions())[1])
    assert double.space.shapes[0] == (5, 1)
    if kind is Right:
        H = Hessian(problem).to_dense()
        exact = oracles.hessian(net(Act(torch.sin), nn.LayerNorm(5).double()), *data())
        assert float((H - exact).abs().max()) < 1e-12
    else:
        with pytest.raises(WrongSecondDerivative, match=r"1 \(Act\)"):
            _ = Hessian(problem) @ torch.ones(problem.size).double()


@pytest.mark.parametrize("n", [200, 600])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weight_norm_is_judged_alike_whatever_n(n: int) -> None:
    model = net(nn.Tanh()).float()
    torch.nn.utils.parametrizations.weight_norm(model[0])
    problem = Problem(model, data(n, torch.float32))
    with pytest.raises(WrongSecondDerivative, match="_WeightNorm"):
        _ = Hessian(problem) @ torch.ones(problem.size)


class Statistics(nn.BatchNorm1d):
    """Batch statistics of the features of one sample: each is alone in its batch."""

    def forward(self, x: Tensor) -> Tensor:
        mean = nn.functional.instance_norm(x[:, None], use_input_stats=True)
        return mean[:, 0]


@pytest.mark.parametrize("layer", [nn.LayerNorm(5), Statistics(5, affine=False)])
def test_reverse_over_forward_of_normalisations_is_judged(layer: nn.Module) -> None:
    """PyTorch 2.13 gets it wrong in silence; whatever a version does, it is not used if wrong."""
    model = net(nn.Tanh(), layer.double())
    problem = Problem(model, data())
    _, function = next(problem.functions())
    double = DoubleFunction.from_function(function)
    assert not second_order_is_wrong(double, ReverseOverReverse)
    wrong = second_order_is_wrong(double, ReverseOverForward)
    if torch.__version__.startswith("2.13"):
        assert wrong
    H = Hessian(problem).to_dense()
    assert not (wrong and problem.plan["hessian: nesting"] == "reverse over forward")
    assert float((H - oracles.hessian(model, *data())).abs().max()) < 1e-12


@pytest.mark.parametrize(
    "layer",
    [nn.ReLU(), nn.Hardtanh(), nn.LeakyReLU(), nn.GELU(), nn.ELU(), nn.Softplus(), nn.SiLU()],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_right_layers_pass(layer: nn.Module, dtype: torch.dtype) -> None:
    model = net(layer).to(dtype)
    with torch.no_grad():
        model[0].weight[0] = 0.0  # a unit that stands on its kink, at every sample
        model[0].bias[0] = 0.0
    problem = Problem(model, data(dtype=dtype))
    _ = Hessian(problem) @ torch.ones(problem.size, dtype=dtype)
    assert problem.plan["forward mode"] == "yes"


def test_pooling_and_ties_pass() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
        )
        X = torch.randn(5, 1, 8, 8)
    X[:, :, :5] = 0.0
    problem = Problem(model, (X, torch.arange(5) % 3))
    _ = Hessian(problem) @ torch.ones(problem.size)
    assert problem.plan["forward mode"] == "yes"


def test_no_second_derivative_is_an_error_of_its_own() -> None:
    problem = Problem(net(nn.Hardsigmoid()), data())
    with pytest.raises(NoSecondDerivative, match=r"1 \(Hardsigmoid\).*relu6"):
        _ = Hessian(problem) @ torch.ones(problem.size).double()
    assert torch.isfinite(GaussNewton(problem) @ torch.ones(problem.size).double()).all()


class Bare(nn.Module):
    """A table of one's own, looked up by the bare function, its first row the padding."""

    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.table, self.out = nn.Parameter(torch.ones(7, 4).triu()), nn.Linear(12, 3)
        self.padding = padding

    def forward(self, tokens: Tensor) -> Tensor:
        found = nn.functional.embedding(tokens, self.table, padding_idx=self.padding)
        return self.out(found.flatten(1))


@pytest.mark.filterwarnings("ignore:.*forward mode:RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_padding_row_is_a_constant_however_it_is_looked_up(dtype: torch.dtype) -> None:
    tokens, y = torch.arange(27).reshape(9, 3) % 7, torch.arange(9) % 3
    tokens[:, 0] = 0
    made = {}
    for padding in (0, None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made[padding] = Problem(Bare(padding).to(dtype), (tokens, y))
    padded, free = (GaussNewton(made[padding]).to_dense() for padding in (0, None))
    expected = free.clone()
    expected[:4], expected[:, :4] = 0.0, 0.0
    assert float(free[:4].abs().max()) > 1e-3
    assert float((padded - expected).abs().max()) < 100 * torch.finfo(dtype).eps
    H = Hessian(made[0]).to_dense()
    assert float((H - H.T).abs().max()) < 100 * torch.finfo(dtype).eps
