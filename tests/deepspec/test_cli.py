"""The shell commands: one job, its folder, and errors in one line."""

import io
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from deepspec.attribution import Attribution
from deepspec.attribution import attribute as attribution_of
from deepspec.cli.commands import app, plain_table
from deepspec.cli.errors import described
from deepspec.report.html import write_report
from tests.deepspec.attribution import planted

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
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
class Attribute(Model):
    def forward(self, x):
        return self.layer(x.pixels)
class Assertion(Model):
    def forward(self, x):
        assert x.shape == (1,), "one\\nimage"
class Shapes(Model):
    def forward(self, x):
        return self.layer(x.T)
class Exit(Model):
    def forward(self, x):
        raise SystemExit(0)
class Interrupted(Model):
    def forward(self, x):
        raise KeyboardInterrupt
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 9
    def __getitem__(self, i):
        return {"image": 1}["pixels"]
def needs(argument):
    pass
def leaves():
    raise SystemExit(0)
def terminated():
    import signal
    signal.raise_signal(signal.SIGTERM)
def shuffled():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), shuffle=True)
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "mynet.py"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def found() -> Attribution:
    return attribution_of(planted.problem(*planted.class_means([12] * 3, 6.0, size=30)), draws=2)


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
    assert code == 2
    assert "--overwrite" in stderr
    code, _, stderr = attribute(net, "--out", str(out), "--overwrite")
    assert code == 2
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
        ("--model", "{net}:Attribute", "no attribute 'pixels' (mynet.py:16)"),
        ("--model", "{net}:Assertion", "raised AssertionError: one"),
        ("--model", "{net}:Shapes", "cannot be multiplied"),
        ("--model", "{net}:Shapes", "mynet.py:22)"),
        ("--model", "{net}:Exit", "forward in {net}:25 raised SystemExit: 0"),
        ("--model", "{net}:needs", "needs in {net}:34 raised TypeError"),
        ("--model", "{net}:leaves", "leaves in {net}:37 raised SystemExit: 0"),
        ("--model", "..x:y", "expected module:function"),
        ("--model", "sys:exit", "exit in sys raised SystemExit"),
        ("--data", "{net}:Rows", "(mynet.py:33)"),
        ("--weights", "nowhere.pt", "weights at nowhere.pt"),
        ("--weights", ".", "found a folder"),
        ("--weights", "/dev/null", "found no file"),
        ("--weights", "{net}", "refused to read"),
        ("--memory-budget", "inf", "as a share or bytes"),
        ("--seed", "9" * 30, "--seed"),
        ("--draws", "few", "valid integer"),
        ("--nonsense", "", "No such option: --nonsense"),
        ("--memory-budget", "-1", "memory_budget"),
        ("--batch-size", "0", "batch_size"),
        ("--per-class", "5", "expected no --per-class, got 5"),
        ("--epochs", "60", "expected no --epochs, got 60"),
        ("--learning-rate", "0.1", "expected no --learning-rate"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    net: Path, option: str, value: str, words: str
) -> None:
    out = net.parent / "run"
    code, stdout, stderr = attribute(net, "--out", str(out), option, value.format(net=net))
    assert code == 2
    assert words.format(net=net) in stderr
    lines = [line for line in stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert not stdout
    assert not out.exists()


def test_a_file_that_is_empty_holds_no_weights(net: Path) -> None:
    (net.parent / "empty.pt").touch()
    code, _, stderr = attribute(net, "--weights", str(net.parent / "empty.pt"))
    assert code == 2
    assert "the file is empty" in stderr


def test_interrupted(net: Path) -> None:
    code, _, stderr = attribute(
        net, "--model", f"{net}:Interrupted", "--out", str(net.parent / "r")
    )
    assert code == 130
    assert stderr.endswith("error: interrupted\n")


def test_without_a_command_it_helps() -> None:
    result = RUNNER.invoke(app, [])
    assert result.exit_code == 0
    assert "attribute" in result.stdout
    assert RUNNER.invoke(app, ["--nonsense"]).stderr == "error: No such option: --nonsense\n"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("folder", "expected a regular file"),
        ("fifo", "expected a regular file"),
        ("link", "found a link"),
        ("binary", "is damaged"),
        ("list", "is damaged"),
        ("deep", "nested too deeply"),
        ("twice", "two entries of one name"),
        ("large", "at most"),
    ],
)
def test_manifests_that_are_something_else(tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / "manifest.json"
    {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("/dev/zero"),
        "binary": lambda: path.write_bytes(b"\xff\xfe"),
        "list": lambda: path.write_text("[1]"),
        "deep": lambda: path.write_text('{"x":' * 200 + "1" + "}" * 200),
        "twice": lambda: path.write_text('{"x": 1, "x": 2}'),
        "large": lambda: (path.touch(), os.truncate(path, 10**9)),
    }[kind]()
    result = RUNNER.invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_a_loaders_worker_raised_is_named(net: Path) -> None:
    """As torch hands it over: with the other process's traceback in its message."""
    text = (
        "Caught KeyError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        f'  File "{torch.__file__}", line 3, in fetch\n'
        f'  File "{net}", line 7, in __getitem__\n'
        "KeyError: 'x'\n"
    )
    assert described(KeyError(text)) == f"__getitem__ in {net}:7 raised KeyError: 'x'"
    assert described(KeyError(text.replace(str(net), torch.__file__))) == "KeyError: 'x'"


def test_markup_in_a_table_is_text() -> None:
    shown = io.StringIO()
    Console(file=shown, width=60).print(plain_table("[red]a", ["[b]"], [["[/x]"]]))
    assert all(text in shown.getvalue() for text in ("[red]a", "[b]", "[/x]"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--test-data", "x"], 2, "expected no --test-data, got x"),
        (["--epochs", "5", "--weights", "w.pt"], 2, "expected no --epochs"),
        (["--per-class", "0"], 2, "equal to 1"),
    ],
)
def test_options_that_the_digits_have_no_use_for_are_refused(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    result = RUNNER.invoke(app, ["attribute", "--out", str(tmp_path / "run"), *arguments])
    assert result.exit_code == code
    assert words in result.stderr


@pytest.mark.parametrize("inside", ["afile", "/proc"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(net: Path, inside: str) -> None:
    (net.parent / "afile").write_text("mine")
    out = net.parent / inside / "run"
    code, _, stderr = attribute(net, "--out", str(out), "--model", f"{net}:nothing")
    assert code == 2
    assert "cannot be written" in stderr
    assert "choose another place" in stderr


def test_terminated_it_leaves_nothing_behind(net: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    code, _, _ = attribute(net, "--out", str(net.parent / "run"), "--model", f"{net}:terminated")
    assert code == 128 + signal.SIGTERM
    assert {path.name for path in net.parent.iterdir()} <= {"mynet.py", "__pycache__"}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_report_drawn_again_keeps_what_was_said_of_the_run(
    found: Attribution, tmp_path: Path
) -> None:
    run = tmp_path / "[red]" / "[/red]<b>"  # markup in a path is text
    extra = {"configuration": {"model": "<script>alert(1)</script>"}, "seconds": {"preparing": 1.5}}
    write_report(found, run, extra=extra)
    before = json.loads((run / "manifest.json").read_text())
    result = RUNNER.invoke(app, ["report", str(run), "--out", str(run), "--overwrite"])
    assert result.exit_code == 0, result.stderr
    assert json.loads((run / "manifest.json").read_text()) == before
    assert result.stdout == f"{run / 'report.html'}\n"
    page = (run / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_folder_without_an_attribution_is_refused(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["report", str(tmp_path), "--out", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert result.stderr.startswith("error:")
