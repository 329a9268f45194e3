"""The attribution of every layer: what it says of each, kept and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import deepspec
from deepspec.attribution import _attribute
from tests.cases import CASES
from tests.deepspec.layerwise.test_layers import problem_of


def attributed(checkpoint: Path | None = None, **options: object) -> deepspec.Attribution:
    chosen = {"select": lambda name, _: name.split(".")[0] in ("4", "5", "8"), "memory_budget": 0}
    _, problem = problem_of(CASES[1], **chosen)
    wanted = {"draws": 2, "steps": 5, "layers": True, **options}
    return deepspec.attribute(problem, checkpoint=checkpoint, **wanted)


@pytest.fixture(scope="module")
def whole() -> deepspec.Attribution:
    return attributed()


def test_every_layer_is_attributed_like_its_arrays(whole: deepspec.Attribution) -> None:
    _, problem = problem_of(CASES[1], select=lambda name, _: name.split(".")[0] in ("4", "5", "8"))
    layers = deepspec.Layers(problem)
    assert tuple(whole.layers) == layers.names
    assert whole.left_out == {}
    traces = 0.0
    for layer in layers:
        found = whole.layers[layer.name]
        for kind in ("features", "errors", "gradients"):
            array, split = getattr(layer, kind), getattr(found, kind)
            assert split.trace == pytest.approx(array.gram.trace(), rel=1e-10)
            assert split.exact
            assert split.samples == 7
            assert split.class_counts == [2, 3, 1, 1]
            top = array.eigenvalues()[: len(split.top)]
            assert torch.allclose(split.top[: len(top)], top, rtol=1e-9)
        traces += found.gradients.trace
        assert vars(found.neural_collapse) == pytest.approx(
            vars(layer.neural_collapse()), nan_ok=True
        )
        assert (found.mean_products is None) == layer.normalizes
        assert found.shared == "reduce"
    assert traces == pytest.approx(whole.train.trace, rel=1e-10)


def test_it_is_kept_and_loaded(whole: deepspec.Attribution, tmp_path: Path) -> None:
    whole.save(tmp_path / "run")
    loaded = deepspec.Attribution.load(tmp_path / "run")
    assert tuple(loaded.layers) == tuple(whole.layers)
    assert torch.equal(loaded.layers["4"].errors.top, whole.layers["4"].errors.top)
    assert loaded.layers["8"].kind == "Linear"
    shown = repr(loaded.layers["8"]).splitlines()
    assert shown[0] == "LayerAttribution("
    assert shown[1].startswith("  Linear from ")
    assert len(shown) <= 10


def test_a_killed_one_goes_on(
    whole: deepspec.Attribution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = _attribute.gauss_newton_side, []

    def killed(measured: object, untrained: object) -> object:
        calls.append(measured)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(measured, untrained)

    with monkeypatch.context() as patched:
        patched.setattr(_attribute, "gauss_newton_side", killed)
        with pytest.raises(KeyboardInterrupt):
            attributed(tmp_path / "run")
        resumed = attributed(tmp_path / "run")
    assert len(calls) == 1 + 3 * 3 + 1  # the net and every array once, and the one that was killed
    assert torch.equal(resumed.layers["5"].errors.top, whole.layers["5"].errors.top)


def test_layers_of_one_s_own_making() -> None:
    _, problem = problem_of(CASES[1], select=lambda name, _: name == "0.weight")
    layers = deepspec.Layers(problem, shared="expand")
    found = deepspec.attribute(problem, draws=2, steps=5, layers=layers).layers["0"]
    assert found.shared == "expand"
    assert found.features.trace == pytest.approx(layers["0"].features.gram.trace(), rel=1e-10)
    assert found.features.samples == 7
    _, other = problem_of(CASES[1])
    with pytest.raises(ValueError, match=r"deepspec\.Layers of the same problem, got Layers"):
        deepspec.attribute(other, layers=layers)
    with pytest.raises(ValueError, match=r"layers as true, false or .* got 'all'"):
        deepspec.attribute(problem, layers="all")  # type: ignore[arg-type]
    array = deepspec.gradients(problem)
    with pytest.raises(TypeError, match=r"a deepspec\.Problem for its layers, got ClassArray"):
        deepspec.attribute(array, layers=True)


def test_labels_are_shuffled_among_samples_not_positions() -> None:
    _, problem = problem_of(CASES[1])
    cells = deepspec.Layers(problem, shared="expand")["0"].features.cells
    assert torch.equal(cells.sample_labels, problem.labels)
    order = torch.tensor([6, 5, 4, 3, 2, 1, 0])
    spread = cells.of_samples(problem.labels[order]).view(7, 16)
    assert torch.equal(spread, problem.labels[order][:, None].expand(7, 16))


def test_a_layer_that_nothing_reaches() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)).double()
        X = torch.randn(6, 3).double()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
        model[2].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    problem = deepspec.Problem(model, (X, torch.arange(6) % 3))
    found = deepspec.attribute(problem, draws=2, steps=5, layers=True).layers
    assert found["0"].features is not None
    assert found["0"].notes == ("its errors are all zero", "its gradients are all zero")
    assert found["2"].features is None
    assert found["2"].errors is not None
    assert found["2"].notes == ("its features are all zero",)
