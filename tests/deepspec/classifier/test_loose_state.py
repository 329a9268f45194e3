"""What a model keeps beside its parameters is the caller's, and stays so."""

import copy
import functools
from collections import OrderedDict, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from deepspec import GaussNewton, Hessian, Problem
from deepspec.classifier.loose_state import as_it_was, loose_tensors
from tests import oracles
from tests.cases import hold
from tests.deepspec.classifier.nets import data, gauss_newton

SHARED: dict[str, Tensor] = {}


class Net(nn.Module):
    """Adds sin(0..3), a table made at the first call and kept somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

    def fresh(self, h: Tensor) -> Tensor:
        return torch.sin(torch.arange(4, dtype=h.dtype))

    def table(self, h: Tensor) -> Tensor:
        return self.fresh(h)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.b(torch.tanh(h + self.table(h)))


class Attribute(Net):
    kept: Tensor | None = None
    cache_dtype: torch.dtype | None = None

    def table(self, h: Tensor) -> Tensor:
        if self.kept is None or self.cache_dtype != h.dtype:
            self.kept, self.cache_dtype = self.fresh(h), h.dtype
        return self.kept


class Nested(Net):
    def __init__(self) -> None:
        super().__init__()
        self.caches = [{"tables": {}}]

    def table(self, h: Tensor) -> Tensor:
        return self.caches[0]["tables"].setdefault("sin", self.fresh(h))


class Listed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def table(self, h: Tensor) -> Tensor:
        if not self.kept:
            self.kept.append(self.fresh(h))
        return self.kept[0]


class Queued(Listed):
    def __init__(self) -> None:
        super().__init__()
        self.kept = deque(maxlen=2)  # type: ignore[assignment]


class InATuple(Net):
    kept: tuple[int, Tensor] | None = None

    def table(self, h: Tensor) -> Tensor:
        if self.kept is None or self.kept[0] != 4:
            self.kept = (4, self.fresh(h))
        return self.kept[1]


class InAnObject(Net):
    def __init__(self) -> None:
        super().__init__()
        self.helper = SimpleNamespace(kept=None)

    def table(self, h: Tensor) -> Tensor:
        if self.helper.kept is None:
            self.helper.kept = self.fresh(h)
        return self.helper.kept


class OfTheClass(Net):
    kept: dict[str, Tensor] = {}  # noqa: RUF012

    def table(self, h: Tensor) -> Tensor:
        if "sin" not in type(self).kept:
            self.kept["sin"] = self.fresh(h)
        return self.kept["sin"]


class Global(Net):
    def table(self, h: Tensor) -> Tensor:
        return SHARED.setdefault("sin", self.fresh(h))


class Property(Net):
    @functools.cached_property
    def kept(self) -> Tensor:
        return torch.sin(torch.arange(4, dtype=self.a.weight.dtype))

    def table(self, h: Tensor) -> Tensor:
        return self.kept


class Memoised(Net):
    @functools.lru_cache  # noqa: B019
    def kept(self) -> Tensor:
        return torch.sin(torch.arange(4, dtype=self.a.weight.dtype))

    def table(self, h: Tensor) -> Tensor:
        return self.kept()


class Buffer(Net):
    """Registers one at the first call, and puts another tensor in its place at the next."""

    def table(self, h: Tensor) -> Tensor:
        self.register_buffer(
            "kept", self.fresh(h) if "kept" not in self._buffers else 1 * self.kept
        )
        return self.kept


class Closure(Net):
    def __init__(self) -> None:
        super().__init__()
        kept: dict[str, Tensor] = {}

        def add(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            if "sin" not in kept:
                kept["sin"] = self.fresh(output)
            return output + kept["sin"]

        self.a.register_forward_hook(add)

    def table(self, h: Tensor) -> Tensor:
        return torch.zeros_like(h[0])


KINDS = [
    Attribute, Nested, Listed, Queued, InATuple, InAnObject, OfTheClass, Global, Property, Memoised,
    Buffer, Closure,
]  # fmt: skip


def plain(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    SHARED.clear()
    OfTheClass.kept.clear()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().to(dtype)


@pytest.mark.parametrize("called", [False, True], ids=["unused before", "used before"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_cached_constant_harms_neither_side(kind: type[nn.Module], called: bool) -> None:
    X, y = data(torch.float32)
    model = plain(kind)
    expected = plain(Net)(X)
    if called:
        model(X)
    G = gauss_newton(model, (X, y), dtype=torch.float64)
    assert torch.equal(model(X), expected)
    reference = oracles.gauss_newton(plain(Net).double(), X.double())
    # A table of the caller's own float32 pass is one of float32.
    assert float((G - reference).abs().max()) < (1e-7 if called else 1e-14)


@pytest.mark.parametrize("kind", [Nested, Closure], ids=lambda kind: kind.__name__)
def test_nothing_is_left_behind_whatever_is_held(kind: type[nn.Module]) -> None:
    X, y = data()
    model = plain(kind, torch.float64)
    before = {name: list(vars(module)) for name, module in model.named_modules()}
    problem = Problem(model, (X, y), batch_size=5)
    v = torch.linspace(-1, 1, problem.size, dtype=torch.float64)
    for way in ("layers", "linearised"):
        hold(problem, way)
        for operator in (GaussNewton(problem), Hessian(problem)):
            operator.prepare(1)
            _ = operator @ v
    assert {name: list(vars(module)) for name, module in model.named_modules()} == before
    assert loose_tensors(model) == []
    assert "kept" not in model._buffers
    assert not SHARED
    assert not OfTheClass.kept


class Writing(nn.Linear):
    """Writes to a tensor it keeps."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.count = torch.zeros(())
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.calls += 1
        return super().forward(x)


def test_tensors_that_are_written_to_are_copies() -> None:
    model = plain(Writing)
    kept = model.count
    Problem(model, data(torch.float32))
    assert model.count is kept
    assert float(kept) == 0
    assert model.calls == 0


class Unlisted(nn.Module):
    """A layer in a plain list, which PyTorch does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4)]
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layers[0](x)))


def test_a_layer_in_a_plain_list_is_named() -> None:
    model = plain(Unlisted)
    X, y = data(torch.float32)
    before = model(X)
    with pytest.warns(RuntimeWarning, match=r"no part of θ.*nn.ModuleList"):
        problem = Problem(model, (X, y), dtype=torch.float64)
    assert problem.size == 15
    assert torch.equal(model(X), before)


class Aliased(nn.Module):
    """Reads its weight through a list, as recurrent layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.weights = [self.linear.weight, self.linear.bias]

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, *self.weights)


def test_parameters_in_a_list_are_the_parameters() -> None:
    X, y = data()
    model = plain(Aliased, torch.float64)
    expected = oracles.gauss_newton(model.linear, X)
    assert torch.allclose(gauss_newton(model, (X, y)), expected, atol=1e-14)
    assert model.weights[0] is model.linear.weight


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*forward mode:RuntimeWarning")
def test_weights_that_a_hook_makes_come_from_theta() -> None:
    X, y = data()
    model = plain(lambda: nn.utils.weight_norm(nn.Linear(4, 3)), torch.float64)
    made = model.weight
    expected = plain(lambda: parametrizations.weight_norm(nn.Linear(4, 3)), torch.float64)
    # The same order of parameters: bias, g, v.
    assert torch.allclose(gauss_newton(model, (X, y)), gauss_newton(expected, (X, y)), atol=1e-13)
    assert model.weight is made


def test_a_cache_of_parametrisations_from_outside_is_not_used() -> None:
    X, y = data()
    model = plain(lambda: parametrizations.orthogonal(nn.Linear(4, 3)), torch.float64)
    expected = gauss_newton(model, (X, y))
    with parametrize.cached():
        before = model(X)
        assert torch.allclose(gauss_newton(model, (X, y)), expected, atol=1e-14)
        assert torch.equal(model(X), before)


class Seeded(nn.Linear):
    """Random features, the same ones at every call."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return super().forward(x + torch.randn(4, dtype=x.dtype))


def test_generators_stay_where_they_are() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    Problem(plain(lambda: Seeded(4, 3)), data(torch.float32))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


def test_an_error_inside_puts_everything_back() -> None:
    model = plain(Nested)

    def interrupted() -> None:
        with as_it_was(model, dict(model.named_parameters())):
            model.caches[0]["tables"]["sin"] = torch.zeros(1)
            model.more = torch.zeros(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert model.caches == [{"tables": {}}]
    assert not hasattr(model, "more")


def test_a_copy_of_the_model_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(copy, "deepcopy", refuse)
    Problem(plain(Net), data(torch.float32))


def counted(model: nn.Module) -> tuple[list[int], Callable]:
    calls: list[int] = []
    return calls, model.register_forward_hook(lambda m, i, o: calls.append(len(o))).remove


def test_a_users_own_counters_count() -> None:
    model = plain(Net)
    calls, remove = counted(model)
    Problem(model, data(torch.float32), verify=False)
    remove()
    assert calls == [9, 2]  # the pass for the logits, and one that looks for casts


class Builds(OrderedDict):
    """A registry whose entries are made when they are asked for, as transformers' ACT2FN is."""

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(key)()


class Guarded(list):
    """A list that nobody may go through."""

    def __iter__(self) -> NoReturn:
        raise AssertionError("gone through")


REGISTRY = Builds({"tanh": nn.Tanh})


class FromARegistry(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.activation = nn.Linear(4, 3), REGISTRY["tanh"]
        self.table, self.guarded = Builds({"relu": nn.ReLU}), Guarded([torch.ones(3)])

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layer(x)) * list.__getitem__(self.guarded, 0)


def test_containers_with_methods_of_their_own_are_read_past_them() -> None:
    net = FromARegistry()
    Problem(net, data(), dtype=torch.float64)
    for registry, key, kind in ((REGISTRY, "tanh", nn.Tanh), (net.table, "relu", nn.ReLU)):
        assert dict.__getitem__(registry, key) is kind
        assert isinstance(registry[key], kind)
    assert list.__getitem__(net.guarded, 0).dtype == torch.float32
