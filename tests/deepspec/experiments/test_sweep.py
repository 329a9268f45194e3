"""A sweep goes on from wherever it was stopped, and ends in the same files."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.experiments import sweep as driver
from deepspec.experiments import worker
from deepspec.experiments.collect import Sweep
from deepspec.experiments.store import ANALYSED, TRAINED, Store
from deepspec.experiments.sweep import run_sweep
from tests.deepspec.experiments.plans import content, tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed sweep."""
    folder = tmp_path_factory.mktemp("whole")
    run_sweep(tiny(), folder)
    return folder


def test_it_trains_chooses_and_analyses(whole: Path) -> None:
    sweep = Sweep(whole)
    (run,) = sweep.runs
    errors = sweep.test_errors(run.cell)
    assert errors[run.learning_rate] == min(errors.values())
    assert run.epochs == (0, 3)
    assert run.at(3).error_rate == run.training.error_rate
    assert run.at(3).test_error == run.training.test_errors[-1]
    net = run.snapshots().at(3)
    problem = worker.problem_of(net, run.split().train)
    assert problem.loss == pytest.approx(run.at(3).loss, rel=1e-12)
    assert [type(moment) for moment in run.moments] == [SnapshotSpectra] * 2
    assert run.claims == {}
    assert list(sweep.groups()) == [run.cell[:2]]
    assert "1 runs analysed in 1 cells" in repr(sweep)


def test_nothing_is_done_twice(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.json")}
    again = run_sweep(tiny(), whole)
    assert again.worked == 0
    assert again.total == 3
    after = {path: path.stat().st_mtime_ns for path in whole.rglob("*.json")}
    assert {k: v for k, v in after.items() if k.name != "plan.json"} == {
        k: v for k, v in before.items() if k.name != "plan.json"
    }


@pytest.mark.parametrize("steps", [1, 4, 9, 13])
def test_stopped_anywhere_it_ends_in_the_same_files(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Stopped when so many files have been put in their place."""
    replace, count = os.replace, 0

    def stop(*names: Any) -> None:
        nonlocal count
        count += 1
        if count == steps:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(tiny(), tmp_path, save_every=0.0)
    run_sweep(tiny(), tmp_path, save_every=0.0)
    assert count > steps
    assert content(tmp_path) == content(whole)


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make()
    said = f"process {os.getpid()} on .*wait for it"
    with store.driving(), pytest.raises(BlockingIOError, match=said):
        run_sweep(tiny(), tmp_path)
    run_sweep(tiny(), tmp_path)


def test_a_net_that_diverges_loses_the_selection(tmp_path: Path) -> None:
    plan = tiny(learning_rate=[1e30, 0.05], training={"weight_decay": 1.0})
    summary = run_sweep(plan, tmp_path)
    assert list(summary.chosen.values()) == [0.05]
    assert len(summary.diverged) == 1
    assert "learning rate 1e+30, seed 0: diverged at epoch" in summary.diverged[0]
    assert not summary.failures
    alone = run_sweep(tiny(learning_rate=[1e30], training={"weight_decay": 1.0}), tmp_path)
    assert alone.chosen == {}
    with pytest.raises(FileNotFoundError, match="expected analysed runs"):
        Sweep(tmp_path)


def test_what_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, told = worker.train, []

    def fails_at_first(*args: Any, **options: Any) -> Any:
        if options["learning_rate"] == 0.1:
            raise RuntimeError("no luck")
        return train(*args, **options)

    monkeypatch.setattr(worker, "train", fails_at_first)
    summary = run_sweep(tiny(), tmp_path, progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (3, 3, 1)
    assert list(summary.chosen.values()) == [0.02]
    (failure,) = summary.failures
    assert "learning rate 0.1, seed 0): RuntimeError: no luck" in str(failure)
    monkeypatch.setattr(worker, "train", train)
    kept = run_sweep(tiny(), tmp_path)
    assert kept.worked == 0
    assert [f.error for f in kept.failures] == ["RuntimeError: no luck"]
    retried = run_sweep(tiny(), tmp_path, retry_failed=True)
    assert not retried.failures
    assert not list((tmp_path / "failed").iterdir())


def test_a_full_disk_stops_the_sweep_and_is_no_failure(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = worker.save_result

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker, "save_result", full)
    with pytest.raises(OSError, match=r"expected room in .*No space left.*same command again"):
        run_sweep(tiny(), tmp_path)
    monkeypatch.setattr(worker, "save_result", save)
    run_sweep(tiny(), tmp_path)
    assert content(tmp_path) == content(whole)
    # Even the note on a failure may find no room.
    monkeypatch.setattr(worker, "train", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(Store, "fail", full)
    with pytest.raises(OSError, match="expected room"):
        run_sweep(tiny(), tmp_path / "other")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="folder that can be written to"):
        run_sweep(tiny(), tmp_path / "file")
    with pytest.raises(FileNotFoundError, match=r"found no plan\.json"):
        Sweep(tmp_path)


def test_snapshots_of_another_net_fail_that_analysis(whole: Path, tmp_path: Path) -> None:
    run_sweep(tiny(), tmp_path)
    (run,) = Sweep(tmp_path).runs
    other = run_sweep(tiny(net=[{"name": "mlp", "widths": [6]}]), tmp_path)
    (wider,) = Sweep(tmp_path).runs
    for path in (run.trained / "snapshots").iterdir():
        (wider.trained / "snapshots" / path.name).write_bytes(path.read_bytes())
    plan = tiny(net=[{"name": "mlp", "widths": [6]}], analysis={"steps": 6})
    (failure,) = run_sweep(plan, tmp_path).failures
    assert not other.failures
    assert failure.kind == ANALYSED
    assert "expected a snapshot of this net" in failure.error


def test_the_papers_claims_where_they_are_asked_for(tmp_path: Path) -> None:
    run_sweep(tiny(learning_rate=[0.05], analysis={"claims": "all"}), tmp_path)
    (run,) = Sweep(tmp_path).runs
    assert set(run.claims) == {3}
    assert {f.claim for f in run.claims[3].findings} >= {"outliers", "bulk of Hess"}
    assert run.claims[3].seconds_by_stage == {}


def test_threads_are_put_back(whole: Path) -> None:
    before = torch.get_num_threads()
    task = {"kind": TRAINED, "name": "x", "settings": {}, "folder": str(whole)}
    outcome = worker.carry_out(task | {"where": {"threads": before + 1}})
    assert outcome["state"] == "failed"
    assert torch.get_num_threads() == before
    Store(whole).forgive("x")


def test_small_dicts_travel(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    carry = driver.engine

    class Spy:
        width = 1

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def submit(self, task: Any) -> None:
            seen.append(json.dumps(task))
            self.inner.submit(json.loads(seen[-1]))

        def finished(self) -> Any:
            return self.inner.finished()

    from contextlib import contextmanager

    @contextmanager
    def spied(*args: Any, **options: Any) -> Any:
        with carry(*args, **options) as inner:
            yield Spy(inner)

    monkeypatch.setattr(driver, "engine", spied)
    run_sweep(tiny(), tmp_path)
    assert len(seen) == 3
    assert max(map(len, seen)) < 1500
    assert content(tmp_path) == content(whole)
