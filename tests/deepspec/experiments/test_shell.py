"""deepspec train, sweep, dynamics and figure, from the shell."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

from deepspec.cli import app, figure
from deepspec.cli import sweep as cli_sweep
from deepspec.dynamics import Snapshots
from deepspec.experiments.collect import Sweep
from deepspec.experiments.sweep import run_sweep
from deepspec.report import dynamics as report
from deepspec.report import source as source_of
from deepspec.report.paper_figures import FIGURES, paper_figure
from deepspec.report.plots import trends as trend_plots
from deepspec.report.source import Source
from deepspec.zoo.registry import network
from deepspec.zoo.training import SNAPSHOTS, Training
from tests.deepspec.experiments.plans import tiny

RUNNER = CliRunner()
PLAN = """
[grid]
data = ["digits"]
net = [{ name = "mlp", widths = [5] }]
per_class = [3]
learning_rate = [0.1]
[training]
epochs = 3
snapshots = [0]
[analysis]
steps = 5
hessian = false
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sizes, two moments."""
    folder = tmp_path_factory.mktemp("swept")
    plan = tiny(
        per_class=[3, 5],
        net=[{"name": "mlp", "widths": [4]}],
        learning_rate=[0.1],
        training={"epochs": 4, "snapshots": [0]},
        analysis={"hessian": True, "steps": 8},
    )
    run_sweep(plan, folder)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places on maps are not looked at here, and densities need not be fine."""
    monkeypatch.setattr(trend_plots, "embed", lambda table, seed: table[:, :2])
    monkeypatch.setattr(source_of, "STEPS", 12)
    monkeypatch.setattr(source_of, "DRAWS", 2)


def test_train_keeps_snapshots_and_goes_on(tmp_path: Path) -> None:
    command = [
        *("train", "--out", str(tmp_path / "run"), "--data", "mnist1d", "--per-class", "4"),
        *("--epochs", "4", "--snapshots", "0,2,4", "--no-normalisation", "--schedule", "cosine"),
        *("--label-noise", "0.2", "--weight-decay", "0", "--learning-rate", "0.01"),
    ]
    result = RUNNER.invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    done = Training.load(tmp_path / "run")
    assert said["error_rate"] == done.error_rate
    assert (done.schedule, done.weight_decay, done.epochs) == ("cosine", 0.0, 4)
    net = network("mlp", (40,), 10, normalise=False)
    assert Snapshots(tmp_path / "run" / SNAPSHOTS, net).epochs == (0, 2, 4)
    assert said["parameters"] == sum(p.numel() for p in net.parameters())
    again = RUNNER.invoke(app, command)
    assert f"test error {done.test_errors[-1]:.2%}" in again.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "mpl"], "got 'mpl'; did you mean mlp"),
        (["--data", "minst"], "'minst'; did you mean mnist"),
        (["--data", "cifar10"], "--root"),
        (["--per-class", "200"], "per_class in 1..173, got 200"),
        (["--epochs", "2"], "epochs"),
        (["--learning-rate", "-1"], "expected --learning-rate above 0, got -1"),
        (["--snapshots", "often"], 'expected --snapshots as "log:8"'),
        (["--model", "convnet", "--data", "mnist1d"], "expected images"),
        (["--learning-rate", "1e30", "--epochs", "3"], "diverged at epoch"),
    ],
)
def test_train_says_what_is_wrong(tmp_path: Path, options: list[str], said: str) -> None:
    result = RUNNER.invoke(app, ["train", "--out", str(tmp_path / "run"), *options])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


def test_sweep_from_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_sweep, "has_dask", lambda: False)
    (tmp_path / "plan.toml").write_text(PLAN)
    command = ["sweep", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "sweep")]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.stderr
    assert "note: runs go one after another" in result.stderr
    assert "2 of 2 runs" in result.stderr
    assert "3 per class: learning rate 0.1\n2 runs, 2 of them now" in result.stdout
    again = json.loads(RUNNER.invoke(app, [*command, "--json", "--workers", "0"]).stdout)
    assert again["worked"] == 0
    assert again["chosen"] == {"mlp (widths [5]) on digits, 3 per class": 0.1}


def test_sweep_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tmp_path / "plan.toml"
    command = ["sweep", str(plan), "--out", str(tmp_path / "sweep"), "--workers", "0"]
    for wrong, right, said in (
        ("epochs", "epoch", "got 'epoch'; did you mean epochs"),
        ("[3]", "[200]", "1..173, got 200"),
        ("epochs = 3", "epochs = 2", "epochs of at least 3"),
    ):
        plan.write_text(PLAN.replace(wrong, right))
        result = RUNNER.invoke(app, command)
        assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    plan.write_text(PLAN)
    gone = ConnectionError("expected the scheduler to stay")
    monkeypatch.setattr(cli_sweep, "run_sweep", lambda *_, **__: (_ for _ in ()).throw(gone))
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 2
    assert result.stderr.endswith("error: expected the scheduler to stay\n")


def test_failures_are_listed_with_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspec.experiments import worker

    (tmp_path / "plan.toml").write_text(PLAN)
    monkeypatch.setattr(worker, "train", lambda *_, **__: 1 / 0)
    command = ["sweep", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "s"), "--workers", "0"]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 1
    assert "failed: training " in result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "--retry-failed" in result.stdout


def test_dynamics_draws_and_measures(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "dynamics"
    result = RUNNER.invoke(app, ["dynamics", str(swept), "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    assert "epoch of the peak of tr G: 3 per class" in result.stdout
    names = {path.stem for path in out.glob("*.png")}
    assert names == {
        *("log-spectra", "levels", "screes", "hessians", "errors", "separation", "shares", "maps")
    }
    command = ["dynamics", str(swept), "--out", str(out)]
    assert RUNNER.invoke(app, command).exit_code == 2
    monkeypatch.setattr(report, "figures", lambda history: iter(()))
    said = json.loads(RUNNER.invoke(app, [*command, "--overwrite", "--json"]).stdout)
    trends = report.History.of(Sweep(swept).runs).trends
    (found,) = said["trends"].values()
    assert found["peak"]["3"]["mean"] == trends.peak[3].mean
    (loaded,) = report.Trended.load(out).trends.values()
    assert repr(loaded) == repr(trends)


def test_a_folder_that_is_no_sweep(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["dynamics", str(tmp_path)])
    assert result.exit_code == 2
    assert "expected the folder of a sweep" in result.stderr


def test_without_hess_there_is_no_figure_of_it(swept: Path) -> None:
    trajectory = report.History.of(Sweep(swept).runs)
    from dataclasses import replace

    from deepspec.report.plots import dynamics, trends

    table = {key: replace(moment, hessian=()) for key, moment in trajectory.table.items()}
    with pytest.raises(ValueError, match="hessian = true"):
        dynamics.hessians(table)
    with pytest.raises(ValueError, match="too many classes"):
        trends.maps([replace(moment, means=None) for moment in table.values()], [""] * len(table))


# Those of the 2018 paper that the 2020 paper has again are drawn alike.
OWN = [name for name in FIGURES if not name.startswith("arxiv") or name[10:] in ("6", "10")]


@pytest.mark.parametrize("name", OWN)
def test_every_figure_is_drawn_and_says_what_it_shows(swept: Path, name: str) -> None:
    drawn = paper_figure(name).draw(source(swept))
    assert isinstance(drawn.figure, Figure)
    assert drawn.figure.axes
    assert drawn.found
    assert drawn.there in (True, False, None)


_SOURCES: dict[Path, Source] = {}


def source(folder: Path) -> Source:
    """One for all, so that nets are attributed once."""
    return _SOURCES.setdefault(folder, Source(Sweep(folder)))


def test_figure_from_the_shell(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = RUNNER.invoke(app, ["figure", "LIST"])
    assert "icml2019-7" in listed.stdout
    names = json.loads(RUNNER.invoke(app, ["figure", "--json"]).stdout)
    assert names[0]["name"] == "arxiv2018-1"
    command = ["figure", "icml2019-7", "--run", str(swept), "--out", str(tmp_path)]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.stderr
    assert "look for: λ(G) ≥ λ(G1+2)" in result.stdout
    assert (tmp_path / "icml2019-7.png").is_file()
    (said,) = json.loads(RUNNER.invoke(app, [*command, "--json"]).stdout)
    assert "to 0e+00" in said["found"]
    wrong = RUNNER.invoke(app, ["figure", "jmlr2020-66"])
    assert (wrong.exit_code, "did you mean jmlr2020-6" in wrong.stderr) == (2, True)
    sizes = RUNNER.invoke(app, [*command, "--per-class", "4"])
    assert (sizes.exit_code, "out of 3, 5, got 4" in sizes.stderr) == (2, True)
    # Without a run the plan that ships makes one.
    monkeypatch.setattr(figure, "DEFAULT", tmp_path / "made")
    monkeypatch.setattr(figure, "read_plan", lambda name: tiny(learning_rate=[0.1]))
    made = ["figure", "icml2019-7", "--run", str(tmp_path / "made"), "--out", str(tmp_path)]
    assert RUNNER.invoke(app, made).exit_code == 0
    assert torch.is_grad_enabled()
