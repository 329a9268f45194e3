"""Engines: Dask's part is small enough to be played by a stub; with the real one where it is."""

import os
import signal
import sys
from collections import deque
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from deepspec.experiments import cluster
from deepspec.experiments.cluster import Dask, engine, has_dask
from deepspec.experiments.sweep import run_sweep
from tests.deepspec.experiments.plans import content, tiny


class KilledWorker(Exception):
    pass


class Future(SimpleNamespace):
    def result(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def exception(self) -> Any:
        return self.value


class Client:
    """Ends each task as it is told to, in turn."""

    def __init__(self, *endings: tuple[str, Any]) -> None:
        self.endings, self.keys = deque(endings), []

    def submit(self, function: Any, task: Any, *, key: str, pure: bool, resources: Any) -> Future:
        assert function is cluster.carry_out
        self.keys.append((key, resources))
        status, value = self.endings.popleft()
        return Future(key=key, status=status, value=value)

    def scheduler_info(self, n_workers: int) -> Any:
        return {"workers": {"a": {"nthreads": 1}, "b": {"nthreads": 2}}}


class Completed(deque):
    add = deque.append
    __next__ = deque.popleft


@pytest.fixture
def distributed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("distributed")
    vars(module).update(as_completed=Completed, KilledWorker=KilledWorker)
    monkeypatch.setitem(sys.modules, "distributed", module)
    return module


TASK = {"kind": "trained", "name": "abc"}


@pytest.mark.usefixtures("distributed")
def test_a_task_whose_worker_died_is_begun_again() -> None:
    client = Client(("error", KilledWorker("x")), ("finished", {"state": "done"}))
    dask = Dask(client, {"GPU": 1.0})
    dask.submit(TASK)
    assert dask.finished() == (TASK, {"state": "done"})
    assert client.keys == [("trained-abc-1", {"GPU": 1.0}), ("trained-abc-2", {"GPU": 1.0})]
    assert dask.width == 6


@pytest.mark.usefixtures("distributed")
def test_a_task_that_kills_every_worker_fails() -> None:
    client = Client(*[("error", KilledWorker("x"))] * 3)
    dask = Dask(client, {})
    dask.submit(TASK)
    _, outcome = dask.finished()
    assert outcome["state"] == "failed"
    assert outcome["error"].startswith("its worker died 3 times")
    assert client.keys[0][1] is None


@pytest.mark.usefixtures("distributed")
@pytest.mark.parametrize("ending", [("cancelled", None), ("finished", OSError("comm"))])
def test_a_scheduler_that_is_gone_is_said(ending: tuple[str, Any]) -> None:
    dask = Dask(Client(ending), {})
    dask.submit(TASK)
    with pytest.raises(ConnectionError, match=r"scheduler to stay.*same command"):
        dask.finished()


def test_a_run_that_nobody_could_do_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = {"state": "failed", "error": "its worker died", "unrecorded": True, "seconds": 0.0}
    monkeypatch.setattr(cluster, "carry_out", lambda task: dict(lost))
    assert len(run_sweep(tiny(), tmp_path).failures) == 2
    assert len(list((tmp_path / "failed").iterdir())) == 2


def test_no_scheduler_there(monkeypatch: pytest.MonkeyPatch, distributed: ModuleType) -> None:
    def refuse(address: str, timeout: int) -> None:
        raise TimeoutError(f"timed out at {address}")

    vars(distributed).update(Client=refuse, LocalCluster=None)
    monkeypatch.setattr(cluster, "has_dask", lambda: True)
    with (
        pytest.raises(ConnectionError, match="scheduler at tcp://nowhere:1, but timed out"),
        engine(0, "tcp://nowhere:1", gpu=False),
    ):
        pass


def test_without_dask_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "has_dask", lambda: False)
    with (
        pytest.raises(ValueError, match=r"pip install 'deepspec-ccm\[cluster\]'"),
        engine(2, None, gpu=False),
    ):
        pass


@pytest.mark.skipif(not has_dask(), reason="the extra deepspec-ccm[cluster] is not installed")
@pytest.mark.filterwarnings("ignore")
def test_a_worker_killed_in_the_middle(tmp_path: Path) -> None:
    """The real one: two processes, one of which is killed after the first run."""
    import psutil

    killed: list[int] = []

    def kill(done: int, total: int, failed: int) -> None:
        if done >= 1 and not killed:
            workers = [
                process
                for process in psutil.Process().children(recursive=True)
                if "spawn_main" in " ".join(process.cmdline())
            ]
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    plan = tiny(seed=[0, 1, 2], training={"epochs": 30})
    summary = run_sweep(plan, tmp_path / "killed", workers=2, progress=kill)
    assert killed
    assert not summary.failures
    run_sweep(plan, tmp_path / "whole")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
