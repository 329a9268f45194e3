"""A sweep drawn: every figure of dynamics with training and sample size, and the trends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.dynamics.trends import Trends, measure_trends
from deepspec.experiments.collect import Run, Sweep
from deepspec.report.plots import dynamics as plots
from deepspec.report.plots import trends as trend_plots
from deepspec.report.plots.style import png
from deepspec.storage.files import write_atomically
from deepspec.storage.results import Saved, new_folder, save_result


@dataclass(frozen=True)
class History:
    """The runs of one net on one data set, with what was measured, read once."""

    title: str
    runs: Sequence[Run]
    moments: dict[tuple[int, int], list[SnapshotSpectra]]
    errors: dict[tuple[int, int], Sequence[float]]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> History:
        """Read what was measured of some runs that differ in n per class and seed."""
        keys = [(run.cell.per_class, run.seed) for run in runs]
        return cls(
            title=runs[0].cell.title,
            runs=runs,
            moments={key: run.moments for key, run in zip(keys, runs, strict=True)},
            errors={key: run.training.errors for key, run in zip(keys, runs, strict=True)},
        )

    @property
    def trends(self) -> Trends:
        """Slopes, peaks, kinks and overtakings."""
        return measure_trends(self.moments, self.errors)

    @property
    def first_seed(self) -> int:
        """The seed whose spectra are drawn."""
        return min(seed for _, seed in self.moments)

    @property
    def sizes(self) -> list[int]:
        """n per class, ascending."""
        return sorted({n for n, _ in self.moments})

    @property
    def table(self) -> plots.Table:
        """One seed's spectra by n per class and epoch."""
        return {
            (n, moment.epoch): moment
            for (n, seed), moments in self.moments.items()
            for moment in moments
            if seed == self.first_seed
        }

    def of_size(self, n: int) -> list[SnapshotSpectra]:
        """One seed's moments at one n."""
        return self.moments[n, self.first_seed]


def figures(trajectory: History) -> Iterator[tuple[str, Figure]]:
    """Every figure by the name of its file."""
    table, trends = trajectory.table, trajectory.trends
    yield "log-spectra", plots.log_spectra(table)
    yield "levels", plots.levels(table)
    yield "screes", plots.screes(table)
    if all(moment.hessian for moment in table.values()):
        yield "hessians", plots.hessians(table)
    yield "errors", error_figure(trajectory)
    yield "separation", trend_plots.separation(trajectory.moments, trends)
    yield "shares", trend_plots.shares(trajectory.moments)
    moments = trajectory.of_size(trajectory.sizes[-1])
    if any(moment.means is not None for moment in moments):
        yield "maps", trend_plots.maps(moments, [f"epoch {m.epoch}" for m in moments])


def error_figure(trajectory: History) -> Figure:
    """Training errors with the peak of tr G and the kink of the error, of one seed."""
    seed, alone = trajectory.first_seed, trajectory.trends
    curves = {n: trajectory.errors[n, seed] for n in trajectory.sizes}
    peaks = {n: alone.peak[n].mean for n in trajectory.sizes}
    kinks = {n: alone.kink[n].mean for n in trajectory.sizes}
    return plots.errors(curves, peaks, kinks)


def write_dynamics(sweep: Sweep, out: str | Path, *, overwrite: bool = False) -> dict[str, Trends]:
    """Draw a sweep into a new folder: figures, and the trends as numbers; by data set and net.

    Raises
    ------
    FileExistsError
        If the folder exists and ``overwrite`` is false.
    """
    found: dict[str, Trends] = {}
    several = sweep.groups()
    with new_folder(Path(out), overwrite=overwrite) as place:
        for number, runs in enumerate(several.values(), start=1):
            trajectory = History.of(runs)
            found[trajectory.title] = trajectory.trends
            prefix = f"{number}-" if len(several) > 1 else ""
            for name, figure in figures(trajectory):
                write_atomically(place / f"{prefix}{name}.png", png(figure))
            words = "\n".join([trajectory.title, *found[trajectory.title].lines()]) + "\n"
            write_atomically(place / f"{prefix}trends.txt", words.encode())
        save_result(place, Trended(trends=found))
    return found


@dataclass(frozen=True, kw_only=True)
class Trended(Saved):
    """The trends of each net on each data set."""

    trends: dict[str, Trends]
