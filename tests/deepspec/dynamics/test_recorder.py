"""The recorder measures what it says, disturbs nothing, and keeps to its share of the time."""

import json
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepspec import ClassStructure, GaussNewton, Hessian, Problem, Recorder
from deepspec.dynamics import neural_collapse, read_rows
from deepspec.dynamics.adapters import lightning_callback, tensorboard_log, trainer_callback
from deepspec.dynamics.measures import MEASURES, classifier_head

EVERYTHING = tuple(MEASURES)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(8)
    inputs = torch.randn(24, 4, generator=generator, dtype=torch.float64)
    return inputs + labels[:, None], labels


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.3), nn.Linear(5, 3)
        ).double()


def train(recorder: Recorder | None, model: nn.Module) -> list[Tensor]:
    """Someone's own loop, with randomness of every kind."""
    inputs, labels = data()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.manual_seed(7)
    seen = []
    for step in range(6):
        rows = torch.randperm(24)[:8]
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        if recorder is not None and step % 2:
            recorder.record(step)  # between backward and step: gradients must survive
        optimiser.step()
        if recorder is not None:
            recorder.record(step)
        noise = np.random.rand() + random.random()  # noqa: NPY002
        seen.append(torch.rand(1) + noise)
    return [*seen, *(value.clone() for value in model.state_dict().values())]


def test_training_goes_on_as_if_it_were_not_there() -> None:
    results = []
    for recorded in (False, True):
        model = net().train()
        model[1].eval()  # a flag of its own
        recorder = None
        if recorded:
            recorder = Recorder(model, data(), what=EVERYTHING, every=1, budget=None)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        before = torch.get_rng_state()
        results.append(train(recorder, model))
        torch.set_rng_state(before)
        assert model.training
        assert not model[1].training
    for left, right in zip(*results, strict=True):
        assert torch.equal(left, right)


def test_what_is_recorded_is_what_dense_matrices_say() -> None:
    model, (inputs, labels) = net(), data()
    options = {"tolerance": 1e-8, "matvecs": 200}
    row = Recorder(model, (inputs, labels), what=EVERYTHING, **options).record(0)
    assert row is not None
    problem = Problem(model, (inputs, labels))
    for name, A in (("G", GaussNewton(problem)), ("Hess", Hessian(problem))):
        values = torch.linalg.eigvalsh(A.to_dense()).flip(0)
        found = [row[f"{name}/{i}"] for i in (1, 2, 3)] + [row[f"{name}/edge"]]
        assert found == pytest.approx(values[:4].tolist(), rel=1e-9, abs=1e-12)
        assert row[f"trace/{name}"] == pytest.approx(float(values.sum()), rel=1e-9)
    for name, part in ClassStructure(problem).named().items():
        dense = float(part.to_dense().trace())
        assert row[f"trace/{name}"] == pytest.approx(dense, rel=1e-8, abs=1e-12)
    assert (row["loss"], row["error_rate"]) == (problem.loss, problem.error_rate)
    assert row["gradient_norm"] == pytest.approx(float(problem.gradient().norm()))
    with torch.no_grad():
        features = model.eval()[:4](inputs)
    head = model[4]
    collapse = vars(neural_collapse(features, labels, head.weight.detach(), head.bias.detach()))
    assert {name: row[name] for name in collapse} == pytest.approx(collapse)


def test_rows_of_one_net_are_the_same_to_the_bit() -> None:
    model = net()
    recorder = Recorder(model, data(), what=EVERYTHING, every=2, budget=None)
    rows = [recorder.record(step) for step in (0, 1, 2, 4)]
    assert rows[1] is None
    plain = [
        {k: v for k, v in row.items() if k not in ("step", "seconds")} for row in recorder.rows
    ]
    assert plain[1] == plain[2]
    assert plain[0] == pytest.approx(plain[1])
    assert [row["step"] for row in recorder.rows] == [0, 2, 4]


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("budget", [0.05, 0.5])
def test_measuring_keeps_to_its_share_of_the_time(budget: float) -> None:
    clock = Clock()

    def measure(problem: Problem) -> dict[str, float]:
        clock.now += 2.0
        return {"x": 1.0}

    recorder = Recorder(net(), data(), what=[measure], every=1, budget=budget, clock=clock)
    for step in range(400):
        clock.now += 1.0
        recorder.record(step)
        spent = 2.0 * len(recorder.rows)
        assert len(recorder.rows) == 1 or spent <= budget * (step + 1)
    # The share is used, and what was left out is counted.
    assert len(recorder.rows) == int(budget * 400 / 2)
    assert len(recorder.rows) + sum(r["skipped"] for r in recorder.rows) + recorder.skipped == 400


def test_rows_go_to_a_file_that_may_have_been_cut(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "curves.jsonl"

    def measure(problem: Problem) -> dict[str, float]:
        return {"x": float("nan"), "y": 2.0}

    for step in (0, 1):
        recorder = Recorder(net(), data(), what=[measure], every=1, budget=None, log=path)
        recorder.record(step)
        with open(path, "a") as file:
            file.write('{"x": 1.0, "st')
        assert [row["step"] for row in read_rows(path)] == list(range(step + 1))
    assert (read_rows(path)[1]["x"], read_rows(path)[1]["y"]) == (None, 2.0)
    path.write_text("no json\n")
    with pytest.raises(ValueError, match="JSON object a line"):
        read_rows(path)
    with pytest.raises(FileNotFoundError, match="recorder's rows"):
        read_rows(tmp_path / "nowhere")


def test_a_net_that_diverged_is_a_row_and_a_first_mistake_is_raised() -> None:
    model = net()
    recorder = Recorder(model, data(), what="loss", every=1, budget=None)
    recorder.record(0)
    nn.init.constant_(model[4].weight, torch.nan)
    row = recorder.record(1)
    assert row is not None
    assert "expected finite logits" in row["error"]
    with pytest.raises(ValueError, match="expected finite logits"):
        Recorder(model, data(), what="loss").record(0)


def test_it_works_where_evaluation_code_stands() -> None:
    recorder = Recorder(net(), data(), what=EVERYTHING, every=1, budget=None)
    expected = recorder.record(0)
    with torch.inference_mode():
        recorder.record(1)
    with torch.no_grad(), torch.autocast("cpu"):
        recorder.record(2)
    assert expected is not None
    for row in recorder.rows:
        assert row["trace/G"] == pytest.approx(expected["trace/G"])


def test_a_function_that_makes_problems_is_enough() -> None:
    model = net()
    recorder = Recorder(lambda: Problem(model, data()), what=EVERYTHING, budget=None)
    row = recorder.record(0)
    assert row is not None
    assert row["loss"] == Problem(model, data()).loss
    same = Recorder(model, data(), what="neural_collapse").record(0)
    assert same is not None
    assert row["nc1"] == same["nc1"]
    with pytest.raises(TypeError, match="returns a Problem, got int"):
        Recorder(lambda: 3, what="loss").record(0)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"what": "spectrum"}, "out of loss, gradient, edge.* got 'spectrum'"),
        ({"every": 0}, "every of at least 1"),
        ({"budget": 0.0}, "budget.*above 0"),
        ({"matvecs": 3}, "matvecs of at least 4"),
        ({"tolerance": 0.0}, "tolerance above 0"),
    ],
)
def test_what_cannot_be_recorded_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recorder(net(), data(), **options)


def test_a_source_is_a_model_with_data_or_a_function() -> None:
    with pytest.raises(TypeError, match="Sequential without data"):
        Recorder(net())
    with pytest.raises(TypeError, match="int without data"):
        Recorder(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="linear map to 7 classes"):
        classifier_head(net(), 7)


def test_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Base:
        pass

    recorder = Recorder(net(), data(), what="loss", every=1, budget=None)
    for name, attribute in (("lightning.pytorch", "Callback"), ("transformers", "TrainerCallback")):
        module = ModuleType(name)
        setattr(module, attribute, Base)
        monkeypatch.setitem(sys.modules, name.partition(".")[0], module)
        monkeypatch.setitem(sys.modules, name, module)
    state = SimpleNamespace(global_step=5)
    lightning_callback(recorder).on_train_batch_end(state, None, None, None, 0)
    state.global_step = 6
    trainer_callback(recorder).on_step_end(None, state, None, model=None)
    assert [row["step"] for row in recorder.rows] == [5, 6]
    seen = []
    writer = SimpleNamespace(add_scalar=lambda *arguments: seen.append(arguments))
    tensorboard_log(writer)({"loss": 2.0, "step": 6, "error": "words"}, 6)
    assert seen == [("deepspec/loss", 2.0, 6)]
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"lightning\.pytorch or pytorch_lightning .* pip install"):
        lightning_callback(recorder)


def test_rows_are_json(tmp_path: Path) -> None:
    recorder = Recorder(net(), data(), what=EVERYTHING, log=tmp_path / "x.jsonl")
    assert json.loads(json.dumps(recorder.record(0))) == read_rows(tmp_path / "x.jsonl")[0]
