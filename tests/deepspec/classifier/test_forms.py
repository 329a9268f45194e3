"""Every form of labelled data that can mean one thing only gives the same matrix."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from deepspec import Problem
from deepspec.classifier.batches import Batches
from tests import oracles
from tests.deepspec.classifier.nets import data, gauss_newton, linear, made

X, y = data()


class Again:
    """Can be gone through again; neither a list nor a Dataset."""

    def __init__(self, entries: list) -> None:
        self.entries = entries

    def __iter__(self) -> Iterator:
        return iter(self.entries)


class Stream(IterableDataset):
    def __iter__(self) -> Iterator:
        return iter(zip(X, y, strict=True))


class MapStyle:
    """As data sets of other libraries are: no torch Dataset, a mapping of arrays a sample."""

    def __len__(self) -> int:
        return len(y)

    def __getitem__(self, index: int) -> dict[str, object]:
        if not 0 <= index < len(y):
            raise IndexError
        return {"input": X[index].numpy(), "label": int(y[index])}


def batches() -> list[tuple[Tensor, Tensor]]:
    return [(X[:4], y[:4]), (X[:0], y[:0]), (X[4:6], y[4:6]), (X[6:], y[6:])]


def named(pairs: list) -> list[dict[str, object]]:
    return [{"input": a, "labels": b} for a, b in pairs]


def samples() -> list[tuple[Tensor, Tensor]]:
    return list(zip(X, y, strict=True))


FORMS: dict[str, Callable[[], object]] = {
    "arrays": lambda: (X.numpy(), y.numpy()),
    "lists": lambda: (X.tolist(), y.tolist()),
    "reversed array": lambda: (X.flip(0).numpy()[::-1], y.flip(0).numpy()[::-1]),
    "foreign bytes": lambda: (X.numpy().astype(">f8"), y.numpy().astype(">i4")),
    "read-only": lambda: (np.frombuffer(X.numpy().tobytes()).reshape(9, 4), y),
    "small labels": lambda: (X, y.to(torch.uint8)),
    "short labels": lambda: (X, y.numpy().astype(np.uint16)),
    "one column": lambda: (X, y[:, None]),
    "mapping": lambda: {"input": X, "labels": y},
    "mapping and labels": lambda: ({"input": X.numpy()}, y),
    "tuple of samples": lambda: tuple(samples()),
    "samples of arrays": lambda: [(a.numpy(), int(b)) for a, b in samples()],
    "samples by name": lambda: named(samples()),
    "batches": batches,
    "batches of arrays": lambda: [(a.numpy(), b.tolist()) for a, b in batches()],
    "batches by name": lambda: named(batches()),
    "two batches": lambda: [(X[:5], y[:5]), (X[5:], y[5:])],
    "equal batches": lambda: [(X[:3], y[:3]), (X[3:6], y[3:6]), (X[6:], y[6:])],
    "batches again": lambda: Again(batches()),
    "samples again": lambda: Again(samples()),
    "stream": Stream,
    "map style": MapStyle,
    "loader of columns": lambda: DataLoader(TensorDataset(X, y[:, None]), 4),
    "one argument": lambda: ((X,), y),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_data_changes_nothing(form: str) -> None:
    found = gauss_newton(linear(), FORMS[form](), batch_size=4)
    assert float((found - oracles.gauss_newton(linear(), X)).abs().max()) < 1e-14


def test_two_classes_may_be_booleans() -> None:
    model = made(lambda: nn.Linear(4, 2))
    assert Problem(model, (X, y > 0)).class_counts.tolist() == [3, 6]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return self.left(x1) * self.right(x2)


class OneTuple(Two):
    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        return super().forward(*both)


class OneMapping(Two):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["a"], batch["b"])


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Two, lambda: ((X, 2 * X), y)),
        (Two, lambda: DataLoader([((a, 2 * a), b) for a, b in samples()], 4)),
        (Two, lambda: [{"x1": a, "x2": 2 * a, "labels": b} for a, b in samples()]),
        (Two, lambda: [((a, 2 * a), b) for a, b in batches()]),
        (OneTuple, lambda: ((X, 2 * X), y)),
        (OneMapping, lambda: ({"a": X, "b": 2 * X}, y)),
    ],
)
def test_several_inputs_go_where_forward_takes_them(kind: type[Two], given: Callable) -> None:
    model = made(Two)
    alone = made(kind)
    expected = gauss_newton(model, {"x1": X, "x2": 2 * X, "labels": y})
    assert torch.allclose(gauss_newton(alone, given(), batch_size=4), expected, atol=1e-14)


class Scaled(nn.Linear):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return super().forward(x) * scale


def test_a_tensor_of_another_length_is_no_tensor_by_sample() -> None:
    scale = torch.tensor([1.0, 2.0, 3.0]).double()
    found = gauss_newton(made(lambda: Scaled(4, 3)), {"x": X, "scale": scale, "labels": y})
    J = oracles.jacobian(linear(), X) * scale[:, None]
    p = torch.softmax(linear()(X) * scale, 1).detach()
    K = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    assert torch.allclose(found, torch.einsum("nap,nab,nbq->pq", J, K, J) / 9, atol=1e-14)


def test_samples_that_a_loader_leaves_out_are_counted() -> None:
    with pytest.warns(RuntimeWarning, match="leaves out 1 sample,"):
        problem = Problem(linear(), DataLoader(TensorDataset(X, y), 4, drop_last=True))
    assert problem.num_samples == 8
    with pytest.warns(RuntimeWarning, match="leaves out 4 samples,"):
        list(Batches(DataLoader(TensorDataset(X, y), 5, drop_last=True), None))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda z: {"scores": z, "features": 2 * z}, "scores"),
        (lambda z: (2 * z, z), 1),
        (lambda z: [2 * z, z], -1),
        (lambda z: {"heads": [z]}, lambda output: output["heads"][0]),
    ],
)
def test_logits_are_where_they_are_said_to_be(change: Callable, where: object) -> None:
    class Net(nn.Linear):
        def forward(self, x: Tensor) -> object:
            return change(super().forward(x))

    found = gauss_newton(made(lambda: Net(4, 3)), (X, y), logits=where)
    assert float((found - oracles.gauss_newton(linear(), X)).abs().max()) < 1e-14


class Ends(TensorDataset):
    def __getitem__(self, index: int) -> object:
        if index == 5:
            raise StopIteration
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_that_ends_its_pass_loses_no_samples_in_silence(workers: int) -> None:
    """PyTorch takes the user's StopIteration for the end of the data."""
    loader = DataLoader(Ends(*data(torch.float32)), batch_size=2, num_workers=workers)
    with pytest.raises(RuntimeError, match=r"expected 5 batches of the data.* ended after 2"):
        Problem(made(lambda: nn.Linear(4, 3)).float(), loader)
