"""A long job in stages: each is timed, counted, shown, and kept on disk once it is done."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from deepspec.engine.distributed import ALONE, Group
from deepspec.storage.checkpoint import CheckpointMismatch, differences, load_state, save_state
from deepspec.storage.results import pack, unpack

Result = TypeVar("Result")
DONE = "done"
RUNNING = "running"
Plan = Mapping[str, Any]


class Stages:
    """Runs stages in order; those that an earlier run finished are read, not run again.

    A stage's result is written whole or not at all, with the choices that change the rounding
    (the plan), so that a run which is killed at any moment goes on where it was and ends with the
    same bits on the CPU.

    Parameters
    ----------
    folder
        Where finished stages are kept; ``None`` keeps nothing.
    configuration
        All that results depend on; a folder of another configuration is refused.
    spent
        The products so far.
    plan, follow
        The choices made so far; make them again.
    costs
        What each stage is expected to cost, in any unit, for the time left.
    group
        The processes that run the stages together: the first one reads and writes, for all.
    """

    def __init__(
        self,
        folder: Path | None,
        configuration: Mapping[str, Any],
        *,
        spent: Callable[[], int],
        plan: Callable[[], Plan],
        follow: Callable[[Plan], None],
        costs: Mapping[str, float],
        group: Group = ALONE,
    ) -> None:
        self._group = group
        self.folder, self.costs = folder, costs
        self.configuration = json.loads(json.dumps(configuration))
        self._spent, self._plan, self._follow = spent, plan, follow
        self._bar: tuple[Progress, Any] | None = None
        self.seconds: dict[str, float] = {}
        self.matvecs: dict[str, int] = {}

    @contextmanager
    def shown(self, title: str) -> Iterator[None]:
        """One bar over all stages inside, with the time left, where stderr is a terminal."""
        console = Console(stderr=True)
        if not console.is_terminal or self._group.rank:
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            self._bar = (bar, bar.add_task(title, total=sum(self.costs.values())))
            yield
        self._bar = None

    def run(self, name: str, kind: Any, work: Callable[[Path | None], Result]) -> Result:
        """The stage's result, of type ``kind``: as it was kept, or from ``work``.

        ``work`` gets a folder for checkpoints of its own, or ``None``; it is gone once the stage is
        done.
        """
        place = None if self.folder is None else self.folder / name.replace(" ", "-")
        if place is not None:
            kept = self._group.state_from_first(lambda: self._read(place / DONE))
            if kept is not None:
                return self._kept(name, kind, *kept)
        if self._bar is not None:
            bar, task = self._bar
            bar.update(task, description=name)
        begin, before = time.perf_counter(), self._spent()
        result = work(None if place is None else place / RUNNING)
        self.seconds[name] = round(time.perf_counter() - begin, 3)
        self.matvecs[name] = self._spent() - before
        if place is not None and self._group.rank == 0:
            self._keep(name, result, place)
        self._advance(name)
        return result

    def _advance(self, name: str) -> None:
        if self._bar is not None:
            bar, task = self._bar
            bar.advance(task, self.costs.get(name, 0.0))

    def _keep(self, name: str, result: Any, place: Path) -> None:
        arrays: dict[str, Tensor] = {}
        tree = pack(result, "result", arrays)
        manifest = {
            "configuration": self.configuration,
            "plan": dict(self._plan()),
            "seconds": self.seconds[name],
            "matvecs": self.matvecs[name],
            "result": tree,
        }
        save_state(place / DONE, manifest, arrays)
        shutil.rmtree(place / RUNNING, ignore_errors=True)

    def _read(self, place: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """What an earlier run left there, if it is of the same configuration."""
        if not (place / "manifest.json").is_file():
            return None
        manifest, arrays = load_state(place)
        lines = differences(self.configuration, manifest.get("configuration", {}), 0.0)
        if lines:
            raise CheckpointMismatch(
                f"the checkpoint in {self.folder} is of another run ({'; '.join(lines)}); "
                "give another path, or delete it to start anew"
            )
        return manifest, arrays

    def _kept(
        self, name: str, kind: Any, manifest: Mapping[str, Any], arrays: dict[str, Tensor]
    ) -> Any:
        self._follow(manifest["plan"])
        self.seconds[name], self.matvecs[name] = manifest["seconds"], manifest["matvecs"]
        self._advance(name)
        return unpack(kind, manifest["result"], arrays)
