"""The commands, their JSON, their errors; and what importing the library costs."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ccm.cli.commands import app
from ccm.cli.options import print_json
from ccm.cli.sweeping import parse_alpha, parse_snrs

MODEL = "--dim 6 --classes 3 --snr 2"


def run(arguments: str) -> Result:
    return CliRunner().invoke(app, shlex.split(arguments), env={"COLUMNS": "200"})


def strict_json(text: str) -> Any:
    """JSON as the standard has it: without NaN and Infinity."""

    def refuse(token: str) -> None:
        raise ValueError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (f"spectrum {MODEL} --alpha 0.5", "Theorem 8.1"),
        (f"law {MODEL} --alpha 0.5 --per-class 10", "detached from t ="),
        (f"law {MODEL} --alpha 0 --per-class 10", "never"),
        (f"bayes {MODEL}", "mini-bulk: antisymmetric"),
        (f"simulate {MODEL} --per-class 50", "test error"),
        ("simulate --dim 2 --classes 2 --snr 1 --per-class 50", "level 3"),
        ("simulate --dim 300 --classes 10 --snr 3 --per-class 20 --alpha 0", "at Bayes"),
    ],
)
def test_every_command_prints_a_table_and_json(arguments: str, expected: str) -> None:
    result = run(arguments)
    assert result.exit_code == 0, result.output
    assert expected in result.stdout
    assert isinstance(strict_json(run(f"{arguments} --json").stdout), dict)


def test_the_table_of_theorem_8_1() -> None:
    levels = json.loads(run("spectrum -d 50 -c 10 -t 3 -a 0.1 --json").stdout)["levels"]
    assert [level["multiplicity"] for level in levels] == [10, 80, 360, 50]
    assert levels[0]["value"] == pytest.approx(0.1 / 9 * (9 * 0.9 + 2 - 1 / 9))


def test_json_of_the_law_has_null_for_absorbed_groups() -> None:
    facts = json.loads(run("law -d 60 -c 3 -t 0.1 -a 0.5 -n 20 --json").stdout)
    assert facts["groups"]["outliers"]["location"] is None
    assert facts["delta"] == 1.0


@pytest.mark.parametrize("command", ["spectrum", "law", "bayes", "simulate", "sweep"])
def test_help_has_an_example_that_runs(command: str, tmp_path: Path) -> None:
    text = " ".join(run(f"{command} --help").stdout.split())
    example = re.search(r"Example: ccm (.*?) Options:", text)
    assert example is not None
    assert "--json" in text
    if command == "sweep":  # the example takes minutes: the same with little data
        small = example[1].replace("1000", "20").replace(":12", ":2").replace("100 ", "12 ")
        assert run(small.replace("sweep.csv", str(tmp_path / "s.csv"))).exit_code == 0
    else:
        result = run(example[1].replace("law.png", str(tmp_path / "law.png")))
        assert result.exit_code == 0, result.output


def test_figures(tmp_path: Path) -> None:
    run(f"law {MODEL} --alpha 0.3 --per-class 10 --figure {tmp_path}/law.svg")
    run(f"bayes {MODEL} --figure {tmp_path}/bayes.pdf")
    assert (tmp_path / "law.svg").read_text().startswith("<?xml")
    assert (tmp_path / "bayes.pdf").read_bytes().startswith(b"%PDF")


def test_sweep_writes_table_and_figures(tmp_path: Path) -> None:
    arguments = (
        f"sweep --dim 6 --classes 3 --snr 1,2 --per-class 40 --replicates 2 --out {tmp_path}"
    )
    result = run(f"{arguments}/s.csv --json")
    assert result.exit_code == 0, result.output
    written = strict_json(result.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "s-eigenvalues.png",
        "s-misclassification.png",
        "s.csv",
    ]
    assert Path(written["files"][0]).name == "s.csv"
    assert len(written["rows"]) == 2
    again = run(f"{arguments}/s.csv")
    assert again.exit_code == 2
    assert "exists; give --overwrite" in again.stderr
    assert run(f"{arguments}/s.csv --overwrite").exit_code == 0
    (tmp_path / "s.csv").unlink()
    again = run(f"{arguments}/s.csv")
    assert again.exit_code == 2
    assert "s-eigenvalues.png exists; give --overwrite" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("spectrum --dim 6 --classes 3 --snr 2 --alpha 0.7", "from 0 to 1 - 1/C"),
        ("spectrum --dim 2 --classes 3 --snr 2 --alpha 0.1", "dim must be at least num_classes"),
        ("spectrum --dim 6 --classes 1 --snr 2 --alpha 0.1", "num_classes must be at least 2"),
        ("spectrum --dim 6 --classes 3 --snr -2 --alpha 0.1", "snr must be finite and at least 0"),
        ("law --dim 6 --classes 3 --snr 2 --alpha 0.1 --per-class 0", "per_class must be at least"),
        ("law -d 9000 -c 3 -t 2 -a 0.1 -n 9 --figure /tmp/x.png", "at most D·C = 10000, got 27000"),
        ("sweep --dim 6 --classes 3 --snr 1 --per-class 9 --out /tmp", "is a folder"),
        ("sweep --dim 6 --classes 3 --snr 1:2:0 --per-class 9", "at least one SNR"),
        ("bayes --dim 6 --classes 3 --snr 99", "SNR from 0 to 64"),
        ("bayes --dim 6 --classes 3 --snr 1 --figure /x.nonsense", "cannot write a figure"),
        ("simulate --dim 60 --classes 3 --snr 9 --per-class 5 --weight-decay 0", "separable"),
        ("simulate --dim 6 --classes 3 --snr 1 --per-class 5 --seed -1", "seed must be at least 0"),
        ("simulate --dim 6 --classes 3 --snr 65 --per-class 9", "SNR from 0 to 64"),
        ("simulate -d 6 -c 3 -t 1 -n 10000000000000000000000", "too large"),
        ("simulate -d 6 -c 3 -t 1 -n 100000000000000000", "Unable to allocate"),
        ("simulate -d 600 -c 100 -t 1 -n 20", "take 8.85 GiB, above 4 GiB"),
        ("spectrum -d 5 -c 2 -t 1e200 -a 0.5", "its square too must be a float"),
        ("law -d 5 -c 2 -t 1e200 -a 0.5 -n 9", "its square too must be a float"),
        ("sweep --dim 6 --classes 3 --snr 1,70 --alpha 0.3 --per-class 9", "SNR from 0 to 64"),
        ("sweep --dim 6 --classes 3 --snr 6:0.5:12 --per-class 9", "low ≤ high"),
        ("sweep --dim 6 --classes 3 --snr 0:1e400:3 --per-class 9", "low ≤ high"),
        ("sweep --dim 6 --classes 3 --snr 0:nan:3 --per-class 9", "low ≤ high"),
        ("sweep --dim 6 --classes 3 --snr 3,1 --per-class 9", "SNRs must ascend"),
        ("sweep --dim 6 --classes 3 --snr 1:2 --per-class 9", "low:high:count"),
        ("sweep --dim 6 --classes 3 --snr 1 --alpha best --per-class 9", "bayes or measured"),
        ("sweep --dim 6 --classes 3 --snr 1 --per-class 9 --out /no/such/s.csv", "make it first"),
        ("sweep --dim 6 --classes 3 --snr 1 --per-class 9 --out /proc/s.csv", "No such file"),
        ("law -d 6 -c 3 -t 1 -a 0.1 -n 5 --figure /no/such/x.png", "No such file"),
        ("law -d 6 -c 3 -t 1 -a nan -n 5", "from 0 to 1 - 1/C"),
        ("nonsense", "No such command 'nonsense'"),
        ("--nonsense", "No such option: --nonsense"),
        ("spectrum --dim x", "valid integer"),
        ("spectrum", "Missing option '--dim'"),
    ],
)
def test_errors_are_one_message_and_a_status(arguments: str, message: str) -> None:
    result = run(arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


def test_a_resume_file_of_another_sweep(tmp_path: Path) -> None:
    (tmp_path / "s.csv.resume").write_text('{"configuration": {"dim": 7}, "units": {}}')
    result = run(f"sweep -d 6 -c 3 --snr 1 -n 9 --out {tmp_path}/s.csv")
    assert result.exit_code == 2
    assert "dim was 7 and is now 6" in result.stderr


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "binary", "empty", "deep", "list"])
def test_what_is_no_resume_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.csv.resume"
    {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("/dev/zero"),
        "binary": lambda: path.write_bytes(b"\xff\xfe"),
        "empty": path.touch,
        "deep": lambda: path.write_text('{"a":' * 5000),
        "list": lambda: path.write_text("[1]"),
    }[kind]()
    result = run(f"sweep -d 6 -c 3 --snr 1 -n 9 --out {tmp_path}/s.csv")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "is not a file to resume from; delete or move it" in result.stderr


def test_interrupted_and_faults_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    for raised, code, words in (
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (KeyError("x"), 2, "error: KeyError: 'x'\n"),
    ):

        def fails(*_: object, raised: BaseException = raised) -> None:
            raise raised

        monkeypatch.setattr("ccm.cli.commands.symmetric_spectrum", fails)
        result = run("spectrum -d 6 -c 3 -t 1 -a 0.1")
        assert result.exit_code == code
        assert result.stderr == words


def test_without_a_command_it_helps() -> None:
    result = run("")
    assert result.exit_code == 0
    assert "simulate" in result.stdout


def test_json_has_null_where_there_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [{"c": math.inf, "d": -math.inf}], "e": 1.5, "f": None})
    expected = {"a": None, "b": [{"c": None, "d": None}], "e": 1.5, "f": None}
    assert strict_json(capsys.readouterr().out) == expected


def test_parsing() -> None:
    assert parse_snrs("0:1:3") == (0.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="low:high:count"):
        parse_snrs("a,b")
    with pytest.raises(ValueError, match="--alpha takes"):
        parse_alpha("x")


def test_importing_is_light() -> None:
    """No SymPy, Matplotlib or torch; the seconds are measured by ``make bench``."""
    heavy = ("sympy", "matplotlib", "torch", "sklearn", "pandas")
    code = f"import ccm, sys; print([m for m in {heavy} if m in sys.modules])"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert text.stdout.strip() == "[]"
