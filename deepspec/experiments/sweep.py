"""Drives a sweep: trainings, the choice of a learning rate, analyses; what is done stays done."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepspec.experiments.cluster import Engine, engine
from deepspec.experiments.plan import Cell, Plan, Settings, name_of
from deepspec.experiments.store import ANALYSED, TRAINED, Store
from deepspec.experiments.worker import DIVERGED, DONE, FAILED, NO_SPACE, Outcome

Progress = Callable[[int, int, int], None]
Ended = dict[tuple[float, int], Outcome]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that raised an error."""

    kind: str
    name: str
    cell: Cell
    learning_rate: float
    seed: int
    error: str

    def __str__(self) -> str:
        what = "training" if self.kind == TRAINED else "analysis"
        return (
            f"{what} {self.name} ({self.cell}, learning rate {self.learning_rate:g}, seed "
            f"{self.seed}): {self.error}"
        )


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a sweep stands.

    Attributes
    ----------
    chosen
        Each cell's learning rate; none where no run of it could be chosen.
    diverged
        Runs whose loss was no longer finite, in words.
    failures
        Runs that raised errors. They are left out until they are retried.
    worked
        How many runs this call did; the others were there.
    total
        How many runs the plan has, analyses counted.
    """

    chosen: Mapping[Cell, float]
    diverged: tuple[str, ...]
    failures: tuple[Failure, ...]
    worked: int
    total: int


def run_sweep(
    plan: Plan,
    folder: str | Path,
    *,
    workers: int = 0,
    scheduler: str | None = None,
    retry_failed: bool = False,
    root: str | Path | None = None,
    download: bool = False,
    device: str = "cpu",
    threads: int = 1,
    save_every: float = 30.0,
    progress: Progress | None = None,
) -> Summary:
    """Train every net of a plan, choose learning rates as the papers do, analyse the chosen nets.

    Whatever was interrupted, the same call goes on, and ends in the same files, to the bit on the
    CPU. In each cell (data, net, n per class) the learning rate with the lowest test error after
    the last epoch is chosen, on average over the seeds (Papyan 2020, Appendix D.1).

    Parameters
    ----------
    folder
        Where everything is kept; see :mod:`deepspec.experiments.store`.
    workers, scheduler
        As for :func:`deepspec.experiments.cluster.engine`.
    retry_failed
        Try again what failed before.
    root, download
        Of the data's files.
    device, threads
        What each run computes on.
    save_every
        Seconds between saves of a training's state.
    progress
        Told (done, total, failed) whenever a run ends.

    Raises
    ------
    BlockingIOError
        If another process drives the sweep in this folder.
    ValueError
        If nets or data do not fit together, a class has too few samples, or Dask is missing.
    OSError
        If nothing can be written, or the disk is full.
    ConnectionError
        If the scheduler goes away.
    """
    plan.check(root, download=download)
    store = Store(folder)
    store.make()
    where = {
        "device": device,
        "threads": threads,
        "root": None if root is None else str(Path(root).resolve()),
        "download": download,
        "save_every": save_every,
    }
    with store.driving():
        store.write_plan(plan.as_dict())
        driver = _Driver(plan, store, where, retry_failed=retry_failed)
        driver.begin()
        if driver.waiting:
            with engine(workers, scheduler, gpu=device.startswith("cuda")) as chosen:
                driver.drive(chosen, progress or (lambda done, total, failed: None))
        return driver.summary()


@dataclass
class _Driver:
    """What is known of every cell, and the tasks that wait."""

    plan: Plan
    store: Store
    where: Mapping[str, Any]
    retry_failed: bool
    waiting: deque[dict[str, Any]] = field(default_factory=deque)
    ended: dict[Cell, Ended] = field(default_factory=dict)
    chosen: dict[Cell, float] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    done: int = 0
    worked: int = 0

    @property
    def total(self) -> int:
        cells = len(list(self.plan.cells()))
        return cells * len(self.plan.seed) * (len(self.plan.learning_rate) + 1)

    def begin(self) -> None:
        """Look at the disk: what is done is taken from there, the rest waits."""
        for cell in self.plan.cells():
            self.ended[cell] = {}
            for rate in self.plan.learning_rate:
                for seed in self.plan.seed:
                    settings = self.plan.run(cell, rate, seed)
                    self._plan_for(TRAINED, settings, cell, rate, seed)

    def drive(self, engine: Engine, progress: Progress) -> None:
        """Have every task done, a few at a time."""
        flying = 0
        progress(self.done, self.total, len(self.failures))
        while self.waiting or flying:
            while self.waiting and flying < engine.width:
                engine.submit(self.waiting.popleft())
                flying += 1
            task, outcome = engine.finished()
            flying -= 1
            self.worked += 1
            if outcome["state"] == NO_SPACE:
                raise OSError(
                    f"expected room in {self.store.folder}, but {outcome['error']}; free some and "
                    "give the same command again: finished runs are kept"
                )
            if outcome.get("unrecorded"):
                self.store.fail(task["kind"], task["name"], task["settings"], outcome["error"])
            cell, rate, seed = task["place"]
            self._note(task["kind"], task["name"], Cell(*cell), rate, seed, outcome)
            progress(self.done, self.total, len(self.failures))

    def summary(self) -> Summary:
        diverged = [
            f"{cell}, learning rate {rate:g}, seed {seed}: diverged at epoch {outcome['epoch']}"
            for cell, runs in self.ended.items()
            for (rate, seed), outcome in runs.items()
            if outcome["state"] == DIVERGED
        ]
        return Summary(
            chosen=self.chosen,
            diverged=tuple(diverged),
            failures=tuple(self.failures),
            worked=self.worked,
            total=self.total,
        )

    def _plan_for(self, kind: str, settings: Settings, cell: Cell, rate: float, seed: int) -> None:
        name = name_of(settings)
        if self.retry_failed:
            self.store.forgive(name)
        record = self.store.record(kind, name)
        failure = None if record is not None else self.store.failure(name)
        if record is not None:
            self._note(kind, name, cell, rate, seed, record)
        elif failure is not None:
            error = str(failure["error"])
            self._note(kind, name, cell, rate, seed, {"state": FAILED, "error": error})
        else:
            self.waiting.append(
                {
                    "kind": kind,
                    "name": name,
                    "settings": settings,
                    "folder": str(self.store.folder.resolve()),
                    "where": self.where,
                    "place": (cell, rate, seed),
                }
            )

    def _note(
        self, kind: str, name: str, cell: Cell, rate: float, seed: int, outcome: Outcome
    ) -> None:
        """A run ended. The last training of a cell calls for its analyses."""
        self.done += 1
        if outcome["state"] == FAILED:
            self.failures.append(
                Failure(
                    kind=kind,
                    name=name,
                    cell=cell,
                    learning_rate=rate,
                    seed=seed,
                    error=str(outcome["error"]),
                )
            )
        if kind != TRAINED:
            return
        runs = self.ended[cell]
        runs[rate, seed] = outcome
        if len(runs) < len(self.plan.learning_rate) * len(self.plan.seed):
            return
        best = choose(runs, self.plan.learning_rate, self.plan.seed)
        if best is None:
            self.done += len(self.plan.seed)  # there is nothing to analyse
            return
        self.chosen[cell] = best
        for each in self.plan.seed:
            settings = analysis_settings(self.plan, cell, best, each)
            self._plan_for(ANALYSED, settings, cell, best, each)


def analysis_settings(plan: Plan, cell: Cell, rate: float, seed: int) -> Settings:
    """Everything that one analysis depends on, and which training it is of."""
    run = plan.run(cell, rate, seed)
    return {**plan.analysis_of(run), "trained": name_of(run)}


def choose(runs: Ended, rates: Iterable[float], seeds: Iterable[int]) -> float | None:
    """The learning rate with the lowest test error after the last epoch, on average over seeds.

    One with a run that diverged or failed is out. Of equals that with the lower training loss,
    then the larger one.

    >>> def ended(test_error, state="done"):
    ...     return {"state": state, "test_error": test_error, "loss": 0.0}
    >>> runs = {(0.1, 0): ended(0.0, "diverged"), (0.01, 0): ended(0.3), (0.001, 0): ended(0.4)}
    >>> choose(runs, [0.1, 0.01, 0.001], [0])
    0.01
    """
    several = list(seeds)
    found: list[tuple[float, float, float]] = []
    for rate in rates:
        mine = [runs[rate, seed] for seed in several if (rate, seed) in runs]
        if len(mine) < len(several) or any(run["state"] != DONE for run in mine):
            continue
        error = math.fsum(run["test_error"] for run in mine) / len(mine)
        loss = math.fsum(run["loss"] for run in mine) / len(mine)
        found.append((error, loss, -rate))
    return -min(found)[2] if found else None
