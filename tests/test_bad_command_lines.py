"""Every command of the three programs, given what it cannot use, says so in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ccm.cli.commands import app as ccm
from deepspec.cli.commands import app as deepspec
from validation.__main__ import app as validation

APPS = {"ccm": ccm, "deepspec": deepspec, "validation": validation}
# As help shows an option that takes a number, or one of several words.
TYPED = re.compile(r"^ *(?:-\w, )?(--[a-z0-9-]+) +(?:<int|<float|\[\w+\|)", re.M)
STRANGE = ["x", "", "[red]", "1,2", "é", "0x1f", "--", "../../x", "\x1b[31m"]
NETS = """
import torch

def net(): return torch.nn.Linear(3, 3)
def data(): return torch.randn(9, 3), torch.arange(9) % 3
def raises(): raise KeyError("x")
def number(): return 3
def leaves(): raise SystemExit(0)
"""
NAMES = ["x", "nets.py", "nets.py:", ":net", "nets.py:nothing", "nets.py:raises", "/dev/null:net"]
NAMES += [
    "nets.py:number",
    "nets.py:leaves",
    "../nets.py:net",
    "[red]:x",
    "folder:net",
    "empty.py:f",
]


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    inside = getattr(command, "commands", {})
    yield path, command
    for name, sub in inside.items():
        yield from commands(sub, (*path, name))


def lines() -> list[Any]:
    """For each option with a type of its own, values that have another; and strange words."""
    found = []
    for program, app in APPS.items():
        for path, command in commands(typer.main.get_command(app)):
            wrong = [[*path, "--nonsense"], [*path, "--nonsense", "1"]]
            if getattr(command, "commands", None):
                wrong += [[*path, word] for word in STRANGE if word not in ("", "--")]
            text = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).stdout
            for option in TYPED.findall(text):
                wrong += [[*path, option], *([*path, option, word] for word in STRANGE)]
            found += [pytest.param(program, wrong, id=" ".join([program, *path]))]
    return found


def refused(program: str, line: list[str]) -> str:
    result = CliRunner().invoke(APPS[program], line)
    assert result.exit_code == 2, (line, result.output)
    assert isinstance(result.exception, SystemExit), (line, result.exception)
    notes = [said for said in result.stderr.splitlines() if not said.startswith("note: ")]
    assert len(notes) == 1, (line, result.stderr)
    assert notes[0].startswith("error: "), (line, result.stderr)
    return notes[0]


@pytest.mark.parametrize(("program", "wrong"), lines())
def test_a_bad_command_line_is_one_line(program: str, wrong: list[list[str]]) -> None:
    for line in wrong:
        assert "\x1b" not in refused(program, line)


@pytest.mark.parametrize("option", ["--model", "--data", "--test-data", "--weights"])
@pytest.mark.filterwarnings("ignore")
def test_what_a_name_leads_to_is_refused_in_words(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.py").touch()
    (tmp_path / "nets.py").write_text(NETS)
    for name in NAMES:
        given = {"--model": "nets.py:net", "--data": "nets.py:data", option: name}
        line = ["attribute", *(word for pair in given.items() for word in pair), "--out", "out"]
        refused("deepspec", line)
        assert not (tmp_path / "out").exists()
