"""What a Problem refuses, a row each: what is built, the error, and the words in it."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from deepspec import Problem
from tests.deepspec.classifier.nets import data, linear

X, y = data()
MIXED = 0.9 * nn.functional.one_hot(y, 3) + 0.1 / 3


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + torch.randn(x.shape, generator=self.generator))


class Dropping(nn.Linear):
    """Draws from the global generator, whatever the mode."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, training=True))


class Returning(nn.Linear):
    """A linear map whose output is handed through a function."""

    def __init__(self, change: Callable[[Tensor], object], width: int = 3) -> None:
        super().__init__(4, width, dtype=torch.float64)
        self.change = change

    def forward(self, x: Tensor) -> object:
        return self.change(super().forward(x))


class Raising(nn.Linear):
    def __init__(self, error: Exception) -> None:
        super().__init__(4, 3, dtype=torch.float64)
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise self.error
        return super().forward(x)


class TwoWays(nn.Linear):
    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Augmented(TensorDataset):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, label = super().__getitem__(index)
        return x + torch.randn(4), label


class Broken(TensorDataset):
    def __init__(self, error: Exception) -> None:
        super().__init__(X, y)
        self.error = error

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 5:
            raise self.error
        return super().__getitem__(index)


def spoilt(row: int, value: float) -> Tensor:
    changed = X.clone()
    changed[row, 0] = value
    return changed


def net(**_: object) -> nn.Module:
    return linear()


def pairs() -> list[tuple[Tensor, Tensor]]:
    return list(zip(X, y, strict=True))


Row = tuple[str, Callable[[], tuple[object, object, dict[str, object]]], type[Exception], str]
V, T, R = ValueError, TypeError, RuntimeError
ROWS: list[Row] = [
    # ---- labels: nothing that is advised may lose something
    ("label too large", lambda: (net(), (X, y + 1), {}), V, r"0\.\.2, got 3 at sample 2.*from 1"),
    ("label negative", lambda: (net(), (X, y - 1), {}), V, "got -1 at sample 0.*3 classes"),
    ("other ignored", lambda: (net(), (X, y.where(y > 0, -7)), {}), V, r"ignore_index=-7"),
    ("all ignored", lambda: (net(), (X, y * 0 - 100), {}), V, "a row that counts.*row_weights"),
    (
        "label later",
        lambda: (net(), (X, y + (torch.arange(9) == 8)), {"batch_size": 4}),
        V,
        "mple 8",
    ),
    ("whole floats", lambda: (net(), (X, y.double()), {}), V, r"integer labels.*y.round\(\)"),
    ("float labels", lambda: (net(), (X, y + 0.5), {}), V, "integer labels.*not whole numbers"),
    ("float column", lambda: (net(), (X, y[:, None] + 0.5), {}), V, "not whole numbers"),
    ("one-hot", lambda: (net(), (X, nn.functional.one_hot(y)), {}), V, r"argmax\(1\).*only if"),
    ("soft", lambda: (net(), (X, 2 * MIXED), {}), V, "soft labels as probabilities.*row 0"),
    ("several", lambda: (net(), (X, torch.ones(9, 3).long()), {}), V, "several classes or none"),
    ("three booleans", lambda: (net(), (X, y > 0), {}), V, "False class 0"),
    ("odd rows", lambda: (net(), (X, torch.zeros(9, 2, 2).long()), {}), V, r"shape \(n,\)"),
    ("complex labels", lambda: (net(), (X, y + 0j), {}), V, "integer labels"),
    (
        "words",
        lambda: (net(), (X, list("abcabcabc")), {}),
        T,
        "expected batches|number the classes",
    ),
    # ---- logits
    ("three dimensions", lambda: (Returning(lambda z: z[None]), (X, y), {}), V, r"got \(1, 9, 3\)"),
    ("nothing", lambda: (Returning(lambda z: None), (X, y), {}), V, "logits=0"),
    (
        "no tensor",
        lambda: (Returning(lambda z: SimpleNamespace(logits=None)), (X, y), {}),
        V,
        "NoneT",
    ),
    ("other key", lambda: (Returning(lambda z: {"scores": z}), (X, y), {}), V, "keys scores"),
    (
        "tuple",
        lambda: (Returning(lambda z: (z, z)), (X, y), {}),
        V,
        r"tuple of \(a tensor of shape",
    ),
    (
        "wrong key",
        lambda: (Returning(lambda z: {"a": z}), (X, y), {"logits": "b"}),
        V,
        "at 'b'.*keys a",
    ),
    ("wrong index", lambda: (Returning(lambda z: (z,)), (X, y), {"logits": 2}), V, "at 2 of"),
    ("wrong name", lambda: (net(), (X, y), {"logits": "scores"}), V, "at 'scores'"),
    ("logits=2.5", lambda: (net(), (X, y), {"logits": 2.5}), T, "logits= as a key"),
    (
        "wrong function",
        lambda: (net(), (X, y), {"logits": lambda z: {}["a"]}),
        V,
        "logits= to find",
    ),
    ("classes", lambda: (Returning(lambda z: z.round().long()), (X, y), {}), V, "real logits"),
    ("one class", lambda: (Returning(lambda z: z, 1), (X, y * 0), {}), V, "at least 2.*zeros_like"),
    ("other width", lambda: (net(), (X, y), {"num_classes": 5}), V, r"\(9, 5\), got \(9, 3\)"),
    (
        "nan input",
        lambda: (net(), (spoilt(4, torch.nan), y), {}),
        V,
        "sample 4; its input has them",
    ),
    ("nan later", lambda: (net(), (spoilt(7, torch.inf), y), {"batch_size": 3}), V, "sample 7"),
    ("nan logits", lambda: (Returning(lambda z: z / 0), (X, y), {}), V, "its input is finite"),
    # ---- randomness and neighbours
    ("noisy", lambda: (Noisy(), (X, y), {}), V, "deterministic model"),
    ("dropout", lambda: (Dropping(4, 3).double(), (X, y), {}), V, "deterministic model"),
    (
        "shuffled",
        lambda: (net(), DataLoader(TensorDataset(X, y), 2, shuffle=True), {}),
        V,
        "shuffling",
    ),
    ("augmented", lambda: (net(), Augmented(X, y), {}), V, "random augmentation"),
    (
        "batch statistics",
        lambda: (
            nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), net()).double(),
            (X, y),
            {},
        ),
        V,
        "track_running_stats=True; switched on afterwards",
    ),
    (
        "one at a time",
        lambda: (Returning(lambda z: z - 0.9 * z.mean(0)), (X, y), {"batch_size": 1}),
        V,
        "track_running_stats",
    ),
    # ---- forms of data
    ("empty", lambda: (net(), (X[:0], y[:0]), {}), V, "at least one sample"),
    ("empty list", lambda: (net(), [], {}), V, "at least one sample"),
    ("empty dataset", lambda: (net(), TensorDataset(X[:0], y[:0]), {}), V, "at least one sample"),
    ("empty batch", lambda: (net(), [(X[:0], y[:0])], {}), V, "at least one sample"),
    ("lengths", lambda: (net(), (X, y[:5]), {}), V, "9 and 5"),
    ("number", lambda: (net(), 3, {}), T, "got int; give"),
    ("text", lambda: (net(), "digits", {}), T, "one str; give"),
    ("X alone", lambda: (net(), X, {}), T, r"one \(9, 4\) float64; give"),
    ("array alone", lambda: (net(), X.numpy(), {}), T, "one ndarray; give"),
    ("generator", lambda: (net(), (p for p in pairs()), {}), T, r"a generator.*list\(batches\)"),
    ("zip", lambda: (net(), zip(X, y, strict=True), {}), T, "a zip, which gives its samples once"),
    (
        "triples",
        lambda: (net(), DataLoader([(a, a, b) for a, b in pairs()], 4), {}),
        T,
        "3 parts.*'x1'",
    ),
    ("list of triples", lambda: (net(), [(a, a, b) for a, b in pairs()], {}), T, "3 parts"),
    ("three tensors", lambda: (net(), (X, X, y), {}), T, "batches of.*got Tensor|3 parts"),
    ("no labels", lambda: (net(), [{"x": a} for a in X], {}), T, "keys"),
    ("no labels at all", lambda: (net(), {"x": X}, {}), T, "keys"),
    ("strings", lambda: (net(), DataLoader([("a", 0), ("b", 1)], 2), {}), T, "collate_fn"),
    ("objects", lambda: (net(), (np.array([object()] * 9), y), {}), T, "arrays of numbers"),
    ("sparse", lambda: (net(), (X.to_sparse(), y), {}), V, r"X.to_dense\(\)"),
    ("compressed", lambda: (net(), [(X.to_sparse_coo(), y)], {}), V, r"X.to_dense\(\)"),
    ("bytes", lambda: (net(), (X.abs().to(torch.uint8), y), {}), R, r"uint8.*X.float\(\)"),
    ("two ways", lambda: (TwoWays(4, 3).double(), ((X, X), y), {}), R, "'x1'.*'labels'"),
    ("ragged", lambda: (net(), [(X[0], 0), (X[0, :3], 1)], {}), R, "batch 0.*collate_fn"),
    (
        "length unknown",
        lambda: (net(), type("D", (torch.utils.data.Dataset,), {})(), {}),
        T,
        "__len__",
    ),
    # ---- what a user's code raises comes with its place
    (
        "sample",
        lambda: (net(), Broken(KeyError("x")), {}),
        R,
        r"sample 5.*KeyError: 'x' \(test_ref",
    ),
    ("stopped", lambda: (net(), Broken(StopIteration()), {}), R, "sample 5.*StopIteration"),
    (
        "batch",
        lambda: (net(), DataLoader(Broken(IndexError("far")), 2), {}),
        R,
        r"batch 2.*sample 4\).*far",
    ),
    (
        "collate",
        lambda: (net(), DataLoader(pairs(), 2, collate_fn=lambda rows: rows[0].a), {}),
        R,
        "batch 0 .*AttributeError.*no attribute 'a'",
    ),
    (
        "late forward",
        lambda: (Raising(KeyError("q")), (X, y), {"batch_size": 4}),
        R,
        r"samples 8\.\.8.*KeyError: 'q' \(test_ref",
    ),
    (
        "late assertion",
        lambda: (Raising(AssertionError("no")), (X, y), {"batch_size": 2}),
        R,
        "number 4.*AssertionE",
    ),
    # ---- the model and options
    ("frozen", lambda: (net().requires_grad_(False), (X, y), {}), V, "trainable parameter"),
    ("no module", lambda: (torch.tanh, (X, y), {}), T, "torch.nn.Module"),
    ("class", lambda: (nn.Linear, (X, y), {}), T, "the class Linear"),
    ("meta", lambda: (nn.Linear(4, 3, device="meta"), (X, y), {}), V, "load its weights"),
    (
        "half precision",
        lambda: (net(), (X, y), {"dtype": torch.bfloat16}),
        V,
        "float32 or torch.float64",
    ),
    ("share", lambda: (net(), (X, y), {"memory_budget": 1.5}), V, "memory_budget"),
    (
        "budget in words",
        lambda: (net(), (X, y), {"memory_budget": "1GB"}),
        V,
        "memory_budget.*'1GB'",
    ),
    ("batch size", lambda: (net(), (X, y), {"batch_size": 0}), V, "batch_size"),
    ("classes in words", lambda: (net(), (X, y), {"num_classes": "3"}), V, "num_classes.*'3'"),
    (
        "mps",
        lambda: (net(), (X, y), {"device": "mps"}),
        V,
        "available, got 'mps'; this machine has cpu",
    ),
    ("cuda:99", lambda: (net(), (X, y), {"device": "cuda:99"}), V, "got 'cuda:99'"),
    ("device meta", lambda: (net(), (X, y), {"device": "meta"}), V, "got 'meta'"),
    ("gpu", lambda: (net(), (X, y), {"device": "gpu"}), V, "got 'gpu'"),
    ("device 2.5", lambda: (net(), (X, y), {"device": 2.5}), V, "got '2.5'"),
    ("device too large", lambda: (net(), (X, y), {"device": 10**30}), V, "available"),
    ("index too large", lambda: (net(), (X, y), {"logits": 10**30}), V, "logits at 10000"),
    ("select", lambda: (net(), (X, y), {"select": ["weight"]}), T, r"function.*got \['weight'\]"),
    (
        "select of one",
        lambda: (net(), (X, y), {"select": lambda name: 1}),
        V,
        "for 'weight'.*TypeE",
    ),
    ("verify", lambda: (net(), (X, y), {"verify": torch.ones(2)}), T, "verify as True or False"),
]


@pytest.mark.parametrize(
    ("build", "error", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
@pytest.mark.filterwarnings("ignore:.*ndarray:UserWarning")
def test_bad_input_is_refused_in_words(build: Callable, error: type[Exception], words: str) -> None:
    model, given, options = build()
    with pytest.raises(error, match=words) as caught:
        Problem(model, given, **options)
    assert "\n" not in str(caught.value)


def test_what_a_worker_raises_comes_in_one_line() -> None:
    loader = DataLoader(Broken(KeyError("gone")), batch_size=3, num_workers=1)
    with pytest.raises(RuntimeError, match=r"batch 1.*KeyError: 'gone'") as caught:
        Problem(linear(), loader)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "plan", [None, 3, "fast", [1, 2], {1: 2}, {"forward mode": None}, linear()]
)
def test_what_is_no_plan_is_refused(plan: object) -> None:
    problem = Problem(linear(), (X, y))
    with pytest.raises(TypeError, match="expected a plan"):
        problem.plan = plan


@pytest.mark.parametrize("labels", [None, 3, X, torch.ones(3), y.numpy()])
def test_one_hot_wants_class_indices(labels: object) -> None:
    with pytest.raises(TypeError, match="integer tensor of shape"):
        Problem(linear(), (X, y)).one_hot(labels)
