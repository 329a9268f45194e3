"""A layer's row of numbers, and the shell's table of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import deepspec.layerwise.table as table
from deepspec import Layers
from deepspec.cli import app
from deepspec.layerwise.table import MEASURES, gradient_trace, layer_measures
from tests.cases import CASES
from tests.deepspec.class_structure.test_array import descending
from tests.deepspec.layerwise import oracle
from tests.deepspec.layerwise.test_layers import observed, problem_of
from tests.layered_cases import problem_of as layered_problem

NET = """
import torch
from torch import nn
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.again, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.again.weight = self.first.weight
    def forward(self, x):
        return self.head(torch.tanh(self.again(torch.tanh(self.first(x)))))
def tied():
    torch.manual_seed(0)
    return Tied()
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3))
def without():
    return nn.Sequential(nn.Linear(4, 3).requires_grad_(False), nn.PReLU())
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 4, generator=generator), torch.arange(30) % 3
"""


@pytest.mark.parametrize("name", ["convolutional", "language", "grouped", "signal", "attention"])
@pytest.mark.filterwarnings("ignore:Using padding=.same. with even")
@pytest.mark.filterwarnings("ignore:forward mode and reverse mode:RuntimeWarning")
def test_the_trace_of_a_block_without_its_spectrum(name: str) -> None:
    for only in ("", "bias"):
        problem = layered_problem(name, select=lambda n, _, only=only: n.endswith(only))
        for layer in Layers(problem):
            expected = layer.gradients.gram.trace()
            assert gradient_trace(layer) == pytest.approx(expected, rel=1e-10), layer


def test_measures_by_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[0]
    model, problem = problem_of(case)
    layer, C = Layers(problem)[1], 3
    seen = observed(case, model[2], model)
    found = layer_measures(layer)
    vectors, labels, weights = oracle.feature_rows(seen, problem.labels, "reduce")
    H = torch.einsum("i,ij,ik->jk", weights, vectors, vectors)
    means = torch.stack([vectors[labels == c].mean(0) for c in range(C)])
    shares = torch.bincount(labels).double() / len(labels)
    H_class = torch.einsum("c,cj,ck->jk", shares, means, means)
    values, of_class = descending(H), descending(H_class)
    assert found["H gap"] == pytest.approx(float(values[C - 1] / values[C]), rel=1e-10)
    assert found["H whitening"] == pytest.approx(float(of_class[1] / of_class[2]), rel=1e-10)
    center = shares @ means
    without = descending(H - torch.outer(center, center))[0]
    assert found["H global"] == pytest.approx(1 - float(without / values[0]), rel=1e-10)
    keep = torch.eye(6).double() - H_class @ torch.linalg.pinv(H_class, rtol=1e-11)
    left = descending(keep @ H @ keep)
    expected = float(left[2] / left[3]) if float(left[3]) > 1e-12 else math.nan
    assert found["H gap left"] == pytest.approx(expected, nan_ok=True)
    deltas, _, p = oracle.error_rows(seen, problem.labels, "reduce")
    D = descending(torch.einsum("ic,icj,ick->jk", p, deltas, deltas))
    assert found["Δ gap"] == pytest.approx(float(D[C - 1] / D[C]), rel=1e-8)
    G = layer.gradients.second_moment.to_dense()
    assert found["tr G"] == pytest.approx(float(G.trace()), rel=1e-10)
    assert found["G gap"] == pytest.approx(float(descending(G)[2] / descending(G)[3]), rel=1e-9)
    assert found["CFAC"] == pytest.approx(
        float((descending(layer.cfac(bias=True).to_dense()) / descending(G))[:C].log().abs().mean())
    )
    assert found["nc1"] == layer.neural_collapse().nc1
    # From products instead of the Gram matrix.
    monkeypatch.setattr(table, "FORMED_UP_TO", 3)
    other = layer_measures(Layers(problem)[1])
    assert math.isnan(other["KFAC"])
    assert other["G gap"] == pytest.approx(found["G gap"], rel=1e-6)


def test_measures_that_have_no_meaning_are_none() -> None:
    _, problem = problem_of(CASES[1])
    found = layer_measures(Layers(problem)["5"])
    assert list(found) == list(MEASURES)
    assert math.isnan(found["KFAC"])
    assert math.isnan(found["cos h⊗δ"])
    assert math.isnan(found["nc3"])
    assert found["nc1"] > 0


# ---- the shell ----------------------------------------------------------------------------------


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def run(net: Path, build: str, *options: str) -> tuple[int, str, str]:
    arguments = ["layers", "--model", f"{net}:{build}", "--data", f"{net}:data", *options]
    found = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    return found.exit_code, found.stdout, found.stderr


def test_a_table_of_layers(net: Path) -> None:
    status, out, _ = run(net, "build", "--weight-decay", "1e-3")
    assert status == 0
    assert "0 (Linear)" in out
    assert "4 → 2" in out
    assert "stationarity" in out
    assert "note: the errors of 0 have 2 dimensions, fewer than the 3 classes" in out


def test_layers_as_json(net: Path) -> None:
    status, out, _ = run(net, "tied", "--json", "--layer", "head", "--shared", "expand")
    found = json.loads(out)
    assert status == 0
    assert list(found["layers"]) == ["head"]
    assert found["layers"]["head"]["width_in"] == 4
    assert found["layers"]["head"]["measures"]["tr G"] > 0
    assert "tied to again.weight" in found["left_out"]["first"]
    assert found["shared"] == "expand"


@pytest.mark.parametrize(
    ("build", "options", "words"),
    [
        ("tied", ("--layer", "first"), "its weight is tied to again.weight"),
        ("build", ("--layer", "nine"), "expected a layer's name, one of 0, 2; got nine"),
        ("without", (), "found none: 1: PReLU"),
        ("build", ("--weight-decay", "0"), "expected the weight decay that the net was trained"),
        ("build", ("--epochs", "5"), "expected no --epochs"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    net: Path, build: str, options: tuple[str, ...], words: str
) -> None:
    status, out, err = run(net, build, *options)
    assert (status, out) == (2, "")
    assert words in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
