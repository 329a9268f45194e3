"""The runner of the studies: it lists, runs, and fails when a study does."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from validation import __main__ as runner
from validation import _record
from validation._study import Profile, Study, Verdict, all_studies

CCM_STUDIES = {
    "theorem-8-1",
    "finite-sample-law",
    "bayes-spectrum",
    "c-outliers",
    "ratio-predicts-misclassification",
}


def study(name: str, passed: bool) -> Study:
    def run(profile: Profile, folder: Path | None) -> Verdict:
        # As a comparison of arrays leaves them: NumPy's own scalars.
        return Verdict(np.bool_(passed), f"{profile} finding", {"x": np.float32(1.0)})

    return Study(name, "a claim", "a source", "a prediction", "a tolerance", run)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = {"good": study("good", True), "bad": study("bad", False)}
    monkeypatch.setattr(runner, "all_studies", lambda: studies)


def test_every_study_states_itself() -> None:
    studies = all_studies()
    assert set(studies) >= CCM_STUDIES
    for found in studies.values():
        assert all([found.claim, found.source, found.prediction, found.tolerance])


def test_without_a_command_it_lists() -> None:
    result = CliRunner().invoke(runner.app, [], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert all(name in result.stdout for name in CCM_STUDIES)
    listed = json.loads(CliRunner().invoke(runner.app, ["list", "--json"]).stdout)
    assert {record["name"] for record in listed} >= CCM_STUDIES


@pytest.mark.usefixtures("two")
def test_one_failure_fails_the_run(tmp_path: Path) -> None:
    everything = ["run", "--all", "--profile", "full", "--out", str(tmp_path / "v"), "--json"]
    result = CliRunner().invoke(runner.app, everything)
    assert result.exit_code == 1
    records = json.loads(result.stdout)
    assert [(r["name"], r["passed"]) for r in records] == [("good", True), ("bad", False)]
    assert records[0]["finding"] == "full finding"
    assert (tmp_path / "v" / "good").is_dir()


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []

    def counted(name: str) -> Study:
        def run(profile: Profile, folder: Path | None) -> Verdict:
            runs.append(name)
            if name == "second" and len(runs) == 2:
                raise KeyboardInterrupt
            return Verdict(True, name, {"x": 1.0})

        return Study(name, "a claim", "a source", "a prediction", "a tolerance", run)

    studies = {name: counted(name) for name in ("first", "second")}
    monkeypatch.setattr(runner, "all_studies", lambda: studies)
    command = ["run", "--all", "--out", str(tmp_path), "--json"]
    assert CliRunner().invoke(runner.app, command).exit_code == 130
    result = CliRunner().invoke(runner.app, command)
    assert [record["finding"] for record in json.loads(result.stdout)] == ["first", "second"]
    assert runs == ["first", "second", "second"]
    # Another profile, other code or a damaged record: measured again.
    CliRunner().invoke(runner.app, [*command, "--profile", "full"])
    assert len(runs) == 5
    (tmp_path / "first" / "verdict.json").write_text("{")
    monkeypatch.setattr(_record, "fingerprint", lambda: "other code")
    CliRunner().invoke(runner.app, [*command, "--profile", "full"])
    assert len(runs) == 7


@pytest.mark.usefixtures("two")
def test_the_table() -> None:
    result = CliRunner().invoke(runner.app, ["run", "good"])
    assert result.exit_code == 0
    assert "1 of 1 passed" in result.stdout
    failed = CliRunner().invoke(runner.app, ["run", "good", "bad"])
    assert failed.exit_code == 1
    assert "FAILED" in failed.stdout


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "name the studies to run, or give --all"),
        (["run", "good", "--all"], "and not both"),
        (["run", "nothing"], "no study nothing; there are good, bad"),
        (["run", "[red]"], "no study [red]; there are good, bad"),
        (["run", "good", "--out", "/dev/null/x"], "can be written to at --out, got /dev/null/x"),
        (["run", "good", "--profile", "slow"], "'slow' is not one of 'quick', 'full'"),
        (["--nonsense"], "No such option: --nonsense"),
        (["list", "more"], "unexpected extra argument"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(runner.app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("two")
def test_a_verdict_that_was_changed_is_measured_again(tmp_path: Path) -> None:
    command = ["run", "bad", "--out", str(tmp_path)]
    assert CliRunner().invoke(runner.app, command).exit_code == 1
    path = tmp_path / "bad" / "verdict.json"
    assert _record.read_verdict(path.parent, "quick") is not None
    path.write_text(path.read_text().replace('"passed": false', '"passed": true'))
    assert _record.read_verdict(path.parent, "quick") is None
    assert CliRunner().invoke(runner.app, command).exit_code == 1


def test_markup_in_a_finding_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(profile: Profile, folder: Path | None) -> Verdict:
        return Verdict(True, "[red]x[/y]", {})

    strange = Study("[b]", "[/i]", "a source", "a prediction", "[/u]", run)
    monkeypatch.setattr(runner, "all_studies", lambda: {"[b]": strange})
    listed = CliRunner().invoke(runner.app, ["list"])
    assert all(text in listed.stdout for text in ("[b]", "[/i]", "[/u]"))
    ran = CliRunner().invoke(runner.app, ["run", "--all"])
    assert ran.exit_code == 0
    assert "[red]x[/y]" in ran.stdout


def test_a_real_study_passes() -> None:
    assert all_studies()["theorem-8-1"].run("quick", None).passed
