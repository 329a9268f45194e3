"""The shell commands: one job, its folder, and errors in one line."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from deepspec.attribution import Attribution
from deepspec.cli import app

RUNNER = CliRunner()
NET = """
import torch
def build():
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(30, 4, generator=generator), torch.arange(30) % 3
def number():
    return 3
def shuffled():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), shuffle=True)
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "mynet.py"
    path.write_text(NET)
    return path


def attribute(net: Path, *arguments: str) -> tuple[int, str, str]:
    chosen = ["--model", f"{net}:build", "--data", f"{net}:data", "--draws", "2"]
    result = RUNNER.invoke(app, ["attribute", *chosen, *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_users_own_net_from_a_file(net: Path) -> None:
    out = net.parent / "run"
    weights = net.parent / "weights.pt"
    state = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    torch.save(state.state_dict(), weights)
    code, stdout, stderr = attribute(
        net, "--out", str(out), "--weights", str(weights), "--dtype", "float64", "--json"
    )
    assert code == 0, stderr
    found = json.loads(stdout)
    assert found["splits"]["train"]["samples"] == 30
    assert (out / "report.html").stat().st_size > 10_000
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["configuration"]["model"] == f"{net}:build"
    assert Attribution.load(out).train.trace == found["splits"]["train"]["trace"]
    page = (out / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert 'src="http' not in page

    again = RUNNER.invoke(app, ["report", str(out), "--out", str(net.parent / "again")])
    assert again.exit_code == 0, again.stderr
    assert (net.parent / "again" / "report.html").exists()


def test_the_seed_governs_what_the_users_functions_draw(net: Path) -> None:
    """The net is drawn from the global generator, as torch.nn's layers are by default."""
    found = []
    for seed in ("3", "3", "4"):
        out = str(net.parent / f"run-{len(found)}")
        code, stdout, stderr = attribute(net, "--out", out, "--seed", seed, "--json")
        assert code == 0, stderr
        found.append(json.loads(stdout)["splits"]["train"]["loss"])
    assert found[0] == found[1] != found[2]


def test_an_existing_folder_is_kept_unless_told(net: Path) -> None:
    out = net.parent / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    code, _, stderr = attribute(net, "--out", str(out))
    assert code == 1
    assert "--overwrite" in stderr
    code, _, stderr = attribute(net, "--out", str(out), "--overwrite")
    assert code == 1
    assert "left alone" in stderr
    assert (out / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--model", "mynet.py", "module:function"),
        ("--model", "{net}:nothing", "function 'nothing'"),
        ("--model", "{net}:number", "torch.nn.Module"),
        ("--data", "{net}:number", "got int"),
        ("--data", "{net}:shuffled", "turn off shuffling"),
        ("--weights", "nowhere.pt", "weights at nowhere.pt"),
        ("--memory-budget", "-1", "memory_budget"),
        ("--batch-size", "0", "batch_size"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    net: Path, option: str, value: str, words: str
) -> None:
    out = net.parent / "run"
    code, stdout, stderr = attribute(net, "--out", str(out), option, value.format(net=net))
    assert code == 1
    assert words in stderr
    assert "Traceback" not in stderr + stdout
    assert not out.exists()


def test_a_folder_without_an_attribution_is_refused(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "new")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error:")
