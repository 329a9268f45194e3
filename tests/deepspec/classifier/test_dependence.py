"""A parameter that the logits miss in eval mode is named; what is right stays as it is."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepspec import GaussNewton, Problem
from deepspec.classifier.dependence import unreached
from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import parameter_space
from tests import oracles
from tests.deepspec.classifier.nets import data, gauss_newton, made

X, y = data()
ROWS = [0, 1, 2, 2, 1, 0]


class Biased(nn.Module):
    """A table of parameters, read by index."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.table = nn.Parameter(torch.randn(3))

    def bias(self) -> Tensor:
        return self.table[ROWS]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.a(x) + self.bias()))


class Cached(Biased):
    """The table's rows are kept in eval mode, until training begins again."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> nn.Module:
        self.cache = {}
        return super().train(mode)

    def bias(self) -> Tensor:
        if self.training:
            return super().bias()
        if "b" not in self.cache:
            self.cache["b"] = super().bias()
        return self.cache["b"]


class CachedForGood(Cached):
    """Nothing empties the cache but the user."""

    def train(self, mode: bool = True) -> nn.Module:
        return nn.Module.train(self, mode)

    def bias(self) -> Tensor:
        if "b" not in self.cache:
            self.cache["b"] = self.table[ROWS]
        return self.cache["b"]


class CachedInAttribute(Biased):
    kept: Tensor | None = None

    def bias(self) -> Tensor:
        if self.kept is None:
            self.kept = super().bias()
        return self.kept


class CachedInPart(Cached):
    """The table is also used as it is, so that it is not missing from the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.table


class CachedInPartForGood(CachedInAttribute):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.table


class InPart(Biased):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.table


CACHES = [Cached, CachedForGood, CachedInAttribute, CachedInPart, CachedInPartForGood]


@pytest.mark.parametrize("kind", CACHES, ids=lambda kind: kind.__name__)
def test_a_cache_that_only_our_passes_fill_does_no_harm(kind: type[Biased]) -> None:
    model = made(kind).train()
    G = gauss_newton(model, (X, y), batch_size=4)
    without = InPart if "InPart" in kind.__name__ else Biased
    assert torch.allclose(G, oracles.gauss_newton(made(without), X), atol=1e-14)


@pytest.mark.parametrize("kind", CACHES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("graph", [False, True], ids=["without graph", "with graph"])
def test_a_cache_that_the_caller_filled_is_found(kind: type[Biased], graph: bool) -> None:
    model = made(kind).eval()
    with torch.set_grad_enabled(graph):
        model(X)
    with pytest.raises(ValueError, match="cache"):
        Problem(model, (X, y))


def test_the_tensor_is_named_and_the_remedy_is_right() -> None:
    model = made(Cached).eval()
    with torch.no_grad():
        model(X)
    with pytest.raises(ValueError, match=r"on table they do in training mode.*model.train\(\)"):
        Problem(model, (X, y))
    model.train()
    expected = oracles.gauss_newton(made(Biased), X)
    assert torch.allclose(gauss_newton(model, (X, y)), expected, atol=1e-14)


class LoRA(nn.Module):
    """Low-rank weights, merged into the others by ``eval()`` as loralib does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.A, self.B = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(3, 2))
        self.merged = False

    def train(self, mode: bool = True) -> nn.Module:
        if mode == self.merged:
            self.weight.data += (self.B @ self.A).data * (-1 if mode else 1)
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.weight if self.merged else self.weight + self.B @ self.A
        return F.linear(x, whole)


class MergedForGood(LoRA):
    def train(self, mode: bool = True) -> nn.Module:
        return nn.Module.train(self, mode)


def test_merged_weights_are_found() -> None:
    with pytest.raises(ValueError, match="on A, B they do in training mode"):
        Problem(made(LoRA).eval(), (X, y))
    apart = made(LoRA)
    assert torch.allclose(
        gauss_newton(apart, (X, y)), oracles.gauss_newton(made(LoRA), X), atol=1e-14
    )
    merged = nn.Sequential(made(MergedForGood))
    merged[0].merged = True
    with pytest.warns(RuntimeWarning, match=r"depend on 0.A, 0.B.*\(0 says that it is merged\)"):
        Problem(merged, (X, y))


class Partly(nn.Module):
    """Some parameters are used nowhere; two only by samples of some kind."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(2))
        self.linear = nn.Linear(4, 3)
        self.left, self.right = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        return z * self.left if float(x[:, 0].sum()) > 0 else z * self.right


@pytest.mark.filterwarnings("error")
def test_what_is_unused_is_warned_about_and_what_one_batch_uses_is_not() -> None:
    ordered = X[X[:, 0].argsort()]
    options = {"batch_size": 3, "select": lambda name, _: name != "unused"}

    def one_by_one() -> None:
        Problem(made(Partly), (ordered, y), **options)

    # Its logits depend on the rest of the batch only between batches, which are of one sign here.
    assert (ordered[:3, 0] < 0).all()
    assert (ordered[6:, 0] > 0).all()
    one_by_one()
    with pytest.warns(RuntimeWarning, match="do not depend on unused:"):
        Problem(made(Partly), (ordered, y), batch_size=3)


def test_no_check_without_verify() -> None:
    problem = Problem(made(Partly), (X[:3], y[:3]), batch_size=1, verify=False)
    assert GaussNewton(problem).shape == (problem.size, problem.size)


def test_the_graph_tells_what_is_reached() -> None:
    model = made(Partly)
    space = parameter_space(model)
    function = LogitFunction(model, space, dict(model.named_parameters()), {}, X[:1], 1)
    other = "right" if float(X[0, 0]) > 0 else "left"
    assert unreached(function) == {"unused", other}


class Unrelated(nn.Module):
    """Keeps tensors that are not made of parameters, one of which it cannot do without."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale, self.shift = torch.full((3,), 2.0), torch.ones(3)
        self.settings = {"optional": torch.ones(3)}

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x) * self.scale + self.settings.get("optional", 0)
        return z if self.shift is None else z + self.shift


def test_tensors_that_are_no_caches_are_let_be() -> None:
    model = made(Unrelated)
    assert Problem(model, (X, y)).size == 15
    assert model.shift is not None
    assert list(model.settings) == ["optional"]
