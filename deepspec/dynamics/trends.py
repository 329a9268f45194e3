"""The trends that the papers describe, as numbers: slopes, peaks, kinks, with errors over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.storage.display import Result, Table, Tabular

Trajectories = Mapping[tuple[int, int], Sequence[SnapshotSpectra]]
"""By (n per class, seed), each by epoch."""


@dataclass(frozen=True, repr=False, kw_only=True)
class OverSeeds(Result):
    """A number with its standard error over seeds; NaN where there is one seed, or none.

    >>> OverSeeds.of([1.0, 3.0])
    2 ± 1 (2 seeds)
    """

    mean: float
    standard_error: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> OverSeeds:
        """Of one value a seed; NaNs are left out."""
        kept = [value for value in values if not math.isnan(value)]
        error = math.nan
        if len(kept) > 1:
            error = statistics.stdev(kept) / math.sqrt(len(kept))
        return cls(
            mean=statistics.fmean(kept) if kept else math.nan,
            standard_error=error,
            seeds=len(kept),
        )

    def __repr__(self) -> str:
        beside = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2g}"
        return f"{self.mean:.3g}{beside} ({self.seeds} seeds)"

    @property
    def sign(self) -> int:
        """+1 or −1 where the mean is more than two standard errors from zero, else 0."""
        if math.isnan(self.mean) or math.isnan(self.standard_error):
            return 0
        if abs(self.mean) <= 2 * self.standard_error:
            return 0
        return 1 if self.mean > 0 else -1


@dataclass(frozen=True, repr=False, kw_only=True)
class Trends(Result, Tabular):
    """What Papyan (2018, 2019, 2020) describe of training and sample size, measured.

    Attributes
    ----------
    with_epoch
        By n per class: the slope of the distance of G_cross from G_within
        (:attr:`SnapshotSpectra.distance`) with log₁₀ of the epoch, in decades a decade. Said to be
        positive (Papyan 2020, §6.2).
    with_samples
        By epoch: its slope with log₁₀ n. Said to be negative.
    means_with_epoch, means_with_samples
        The same for the mean eigenvalues (:attr:`SnapshotSpectra.separation`), which have a sign:
        positive where G_cross moves to the right of G_within.
    class_with_epoch
        As ``means_with_epoch`` for G_class from G_within, said not to change.
    peak
        By n per class: the epoch at which tr G is largest.
    kink
        By n per class: where the training error stops falling steeply (:func:`kink`), said to be
        where the peak is (Papyan 2018, Fig. 10).
    overtaking
        By n per class: the first epoch from which the class c explains more of the mean gradients
        than c' does (Papyan 2019, Fig. 5), NaN where it never does.
    """

    with_epoch: dict[int, OverSeeds]
    with_samples: dict[int, OverSeeds]
    means_with_epoch: dict[int, OverSeeds]
    means_with_samples: dict[int, OverSeeds]
    class_with_epoch: dict[int, OverSeeds]
    peak: dict[int, OverSeeds]
    kink: dict[int, OverSeeds]
    overtaking: dict[int, OverSeeds]

    def _words(self) -> list[str]:
        return self.lines()

    def _table(self) -> Table:
        rows = [
            (f.name, key, one) for f in fields(self) for key, one in getattr(self, f.name).items()
        ]
        return {
            "trend": [name for name, _, _ in rows],
            "at": [key for _, key, _ in rows],
            "mean": [one.mean for _, _, one in rows],
            "standard_error": [one.standard_error for _, _, one in rows],
            "seeds": [one.seeds for _, _, one in rows],
        }

    def lines(self) -> list[str]:
        """One line a trend and n, or epoch."""
        found = []
        for title, table, of in (
            ("distance of G_cross from G_within, per decade of epochs", "with_epoch", "n"),
            ("distance of G_cross from G_within, per decade of n", "with_samples", "e"),
            (
                "means of G_cross over G_within, per decade of epochs",
                "means_with_epoch",
                "n",
            ),
            ("means of G_cross over G_within, per decade of n", "means_with_samples", "e"),
            (
                "means of G_class over G_within, per decade of epochs",
                "class_with_epoch",
                "n",
            ),
            ("epoch of the peak of tr G", "peak", "n"),
            ("epoch of the kink of the training error", "kink", "n"),
            ("epoch at which class overtakes cross-class", "overtaking", "n"),
        ):
            words = "; ".join(
                f"{'epoch ' if of == 'e' else ''}{key}{' per class' if of == 'n' else ''}: {value}"
                for key, value in getattr(self, table).items()
            )
            found.append(f"{title}: {words}")
        return found


def measure_trends(
    trajectories: Trajectories, errors: Mapping[tuple[int, int], Sequence[float]]
) -> Trends:
    """All trends of one net on one data set.

    Parameters
    ----------
    trajectories
        What was measured, by (n per class, seed), each by epoch.
    errors
        The training error after each epoch, by the same.

    Raises
    ------
    ValueError
        If there is nothing to measure.
    """
    if not trajectories:
        raise ValueError("expected at least one trajectory, got none; analyse a run first")
    sizes = sorted({n for n, _ in trajectories})
    epochs = sorted({m.epoch for moments in trajectories.values() for m in moments if m.epoch})

    def over_seeds(n: int, number: Callable[[tuple[int, int]], float]) -> OverSeeds:
        return OverSeeds.of([number(key) for key in sorted(trajectories) if key[0] == n])

    def slope_of(name: str) -> Callable[[tuple[int, int]], float]:
        def number(key: tuple[int, int]) -> float:
            moments = [m for m in trajectories[key] if m.epoch]
            return slope(
                [math.log10(m.epoch) for m in moments], [getattr(m, name) for m in moments]
            )

        return number

    def over_sizes(name: str) -> dict[int, OverSeeds]:
        found = {}
        for epoch in epochs if len(sizes) > 1 else ():
            slopes = []
            for seed in sorted({seed for _, seed in trajectories}):
                points = [
                    (math.log10(n), getattr(moment, name))
                    for (n, own), moments in sorted(trajectories.items())
                    for moment in moments
                    if own == seed and moment.epoch == epoch
                ]
                slopes.append(slope([x for x, _ in points], [y for _, y in points]))
            found[epoch] = OverSeeds.of(slopes)
        return found

    return Trends(
        with_epoch={n: over_seeds(n, slope_of("distance")) for n in sizes},
        with_samples=over_sizes("distance"),
        means_with_epoch={n: over_seeds(n, slope_of("separation")) for n in sizes},
        means_with_samples=over_sizes("separation"),
        class_with_epoch={n: over_seeds(n, slope_of("class_separation")) for n in sizes},
        peak={n: over_seeds(n, lambda key: peak(trajectories[key])) for n in sizes},
        kink={n: over_seeds(n, lambda key: kink(errors[key])) for n in sizes},
        overtaking={n: over_seeds(n, lambda key: overtaking(trajectories[key])) for n in sizes},
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the least-squares line; NaN for fewer than two places, points of NaN left out.

    >>> round(slope([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]), 12)
    2.0
    """
    points = np.array([(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)])
    if len(points) < 2 or np.ptp(points[:, 0]) == 0:
        return math.nan
    left = points[:, 0] - points[:, 0].mean()
    return float(left @ points[:, 1] / (left @ left))


def peak(moments: Sequence[SnapshotSpectra]) -> float:
    """The epoch at which tr G is largest; NaN for none."""
    if not moments:
        return math.nan
    return float(max(moments, key=lambda moment: moment.trace).epoch)


def kink(errors: Sequence[float]) -> float:
    """The epoch at which a curve of errors stops falling steeply.

    The knot of the continuous curve of two straight lines, error against log epoch, that fits
    best; NaN where there are fewer than four epochs or the error never changes.

    >>> kink([0.8, 0.6, 0.483, 0.4, 0.4, 0.4, 0.4, 0.4])
    4.0
    """
    values = np.asarray(errors, dtype=float)
    if len(values) < 4 or np.ptp(values) == 0:
        return math.nan
    x = np.log(np.arange(1, len(values) + 1))
    best, at = math.inf, math.nan
    for knot in range(1, len(values) - 1):
        design = np.stack([np.ones_like(x), x, np.maximum(x - x[knot], 0.0)], axis=1)
        fit, *_ = np.linalg.lstsq(design, values, rcond=None)
        left = float(((design @ fit - values) ** 2).sum())
        if left < best:
            best, at = left, float(knot + 1)
    return at


def overtaking(moments: Sequence[SnapshotSpectra]) -> float:
    """The first epoch from which on c explains more of the mean gradients than c' does."""
    at = math.nan
    for moment in reversed(moments):
        if moment.layout is None or not moment.layout.by_class > moment.layout.by_cross_class:
            break
        at = float(moment.epoch)
    return at
