"""What a sweep found, read from its folder: chosen nets, their trainings, and their analyses."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepspec.attribution.split import SplitAttribution
from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.dynamics.snapshots import Snapshots
from deepspec.experiments.plan import Cell, Plan, Settings, load, name_of
from deepspec.experiments.reading import plan_of
from deepspec.experiments.store import ANALYSED, TRAINED, Store
from deepspec.experiments.sweep import Ended, analysis_settings, choose
from deepspec.experiments.worker import CLAIMS, build
from deepspec.storage.results import load_result
from deepspec.zoo.datasets import Split
from deepspec.zoo.training import SNAPSHOTS, Training


@dataclass(frozen=True, kw_only=True)
class Run:
    """One chosen training: its cell, learning rate and seed, and where it lies."""

    cell: Cell
    learning_rate: float
    seed: int
    settings: Settings
    trained: Path
    analysed: Path

    @property
    def training(self) -> Training:
        """Losses and errors by epoch."""
        return Training.load(self.trained)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Those analysed."""
        return tuple(sorted(int(p.name[6:]) for p in self.analysed.glob("epoch-*") if p.is_dir()))

    def at(self, epoch: int) -> SnapshotSpectra:
        """What was measured after some epoch."""
        return SnapshotSpectra.load(self.analysed / f"epoch-{epoch:06d}")

    @property
    def moments(self) -> list[SnapshotSpectra]:
        """All that was measured, by epoch."""
        return [self.at(epoch) for epoch in self.epochs]

    @property
    def claims(self) -> dict[int, SplitAttribution]:
        """The papers' claims by epoch, where the plan asked for them."""
        folders = sorted(self.analysed.glob(f"{CLAIMS}-*"))
        return {int(f.name[-6:]): load_result(SplitAttribution, f)[0] for f in folders}

    def split(self, root: str | Path | None = None) -> Split:
        """Its data, loaded or drawn again."""
        name = self.settings["net"]["name"]
        return load(self.settings["data"], name, self.seed, root, False)

    def snapshots(self, root: str | Path | None = None) -> Snapshots:
        """Its nets."""
        return Snapshots(self.trained / SNAPSHOTS, build(self.settings, self.split(root)))


class Sweep:
    """The folder of a sweep, as far as it came.

    Raises
    ------
    FileNotFoundError
        If the folder is none, or nothing in it is analysed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._store = Store(folder)
        self.plan: Plan = plan_of(self._store.read_plan())
        self.runs: tuple[Run, ...] = tuple(self._found())
        if not self.runs:
            raise FileNotFoundError(
                f"expected analysed runs in {folder}, found none; give the command deepspec sweep "
                "again, to its end"
            )

    def __repr__(self) -> str:
        cells = len({run.cell for run in self.runs})
        return f"Sweep({str(self.folder)!r}, {len(self.runs)} runs analysed in {cells} cells)"

    def _found(self) -> Iterator[Run]:
        for cell in self.plan.cells():
            rate = self.rate(cell)
            for seed in self.plan.seed if rate is not None else ():
                assert rate is not None
                settings = analysis_settings(self.plan, cell, rate, seed)
                name = name_of(settings)
                if self._store.record(ANALYSED, name) is not None:
                    yield Run(
                        cell=cell,
                        learning_rate=rate,
                        seed=seed,
                        settings=settings["run"],
                        trained=self._store.place(TRAINED, settings["trained"]),
                        analysed=self._store.place(ANALYSED, name),
                    )

    def rate(self, cell: Cell) -> float | None:
        """The learning rate chosen for a cell, of the runs that are there."""
        return choose(self._ended(cell), self.plan.learning_rate, self.plan.seed)

    def test_errors(self, cell: Cell) -> dict[float, float]:
        """The test error after the last epoch by learning rate, on average over seeds."""
        found: dict[float, list[float]] = {}
        for (rate, _), outcome in self._ended(cell).items():
            found.setdefault(rate, []).append(float(outcome.get("test_error", "nan")))
        return {rate: statistics.fmean(errors) for rate, errors in sorted(found.items())}

    def _ended(self, cell: Cell) -> Ended:
        ended: Ended = {}
        for rate in self.plan.learning_rate:
            for seed in self.plan.seed:
                name = name_of(self.plan.run(cell, rate, seed))
                record: dict[str, Any] | None = self._store.record(TRAINED, name)
                if record is not None:
                    ended[rate, seed] = record
        return ended

    def groups(self) -> dict[tuple[str, str], list[Run]]:
        """Runs by data set and net, smallest sample first."""
        found: dict[tuple[str, str], list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: (run.cell.per_class, run.seed)):
            found.setdefault((run.cell.data, run.cell.net), []).append(run)
        return found
