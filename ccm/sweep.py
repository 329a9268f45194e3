"""Signal-to-noise sweeps: theory at every level beside simulation, as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ccm.bayes import bayes_spectrum
from ccm.finite_sample import finite_sample_law
from ccm.logistic import as_weight_decay
from ccm.model import CanonicalClassificationModel, as_count
from ccm.resume import Journal, write_atomically
from ccm.simulation import simulate, spectrum_group_means
from ccm.softmax_moments import check_integrable
from ccm.symmetric import as_alpha, symmetric_spectrum

GROUPS = ("outliers", "mini_bulk", "bulk")
SPECTRA = ("symmetric", "sampled_bayes", "fitted")
RATIOS = (("outliers", "bulk"), ("outliers", "mini_bulk"), ("mini_bulk", "bulk"))
Alpha = float | Literal["bayes", "measured"]


@dataclass(frozen=True)
class SweepConfiguration:
    """All that a sweep's numbers depend on.

    ``alpha``, of levels 1 and 2 and of the simulated symmetric probabilities, is a number, or
    "bayes" (the Bayes classifier's at each SNR) or "measured" (the fitted classifier's).

    Raises
    ------
    TypeError, ValueError
        If a value is out of its range.
    """

    dim: int
    num_classes: int
    snrs: tuple[float, ...]
    per_class: int
    alpha: Alpha
    replicates: int
    weight_decay: float
    seed: int

    def __post_init__(self) -> None:
        if not self.snrs:
            raise ValueError("a sweep needs at least one SNR, got none")
        for snr in self.snrs:
            check_integrable(CanonicalClassificationModel(self.dim, self.num_classes, snr).snr)
        if any(high <= low for low, high in pairwise(self.snrs)):
            raise ValueError(f"SNRs must ascend (curves are drawn along them), got {self.snrs}")
        # Plain numbers: NumPy's cannot be written to the file that a sweep resumes from.
        plain: dict[str, Any] = {
            "snrs": tuple(float(snr) for snr in self.snrs),
            "dim": as_count(self.dim, "dim", 1),
            "num_classes": as_count(self.num_classes, "num_classes", 2),
            "per_class": as_count(self.per_class, "per_class", 1),
            "replicates": as_count(self.replicates, "replicates", 2),
            "seed": as_count(self.seed, "seed", 0),
            "weight_decay": as_weight_decay(self.weight_decay),
        }
        if not isinstance(self.alpha, str):
            plain["alpha"] = as_alpha(self.num_classes, self.alpha)
        elif self.alpha not in ("bayes", "measured"):
            raise ValueError(f"alpha is a number, 'bayes' or 'measured', got {self.alpha!r}")
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def model(self, point: int) -> CanonicalClassificationModel:
        """The model at one SNR of the sweep."""
        return CanonicalClassificationModel(self.dim, self.num_classes, self.snrs[point])


@dataclass(frozen=True)
class SweepTable:
    """One row an SNR; see :func:`snr_sweep` for the columns."""

    configuration: SweepConfiguration
    rows: tuple[Mapping[str, float], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.rows[0])

    def column(self, name: str) -> Float[np.ndarray, " points"]:
        """One column, NaN where there is no value.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        if name not in self.columns:
            raise ValueError(f"no column {name!r}; there are {', '.join(self.columns)}")
        return np.array([row[name] for row in self.rows])

    def to_csv(self) -> str:
        """The table as CSV; numbers in their shortest exact form, empty where there is none."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow("" if math.isnan(value) else repr(value) for value in row.values())
        return text.getvalue()

    def records(self) -> list[dict[str, float | None]]:
        """The rows as plain dictionaries, None where there is no value: for JSON."""
        return [{k: v if math.isfinite(v) else None for k, v in row.items()} for row in self.rows]

    def save(self, path: Path | str) -> None:
        """Write the CSV, atomically."""
        write_atomically(Path(path), self.to_csv())


def snr_sweep(
    dim: int,
    num_classes: int,
    snrs: Iterable[float],
    per_class: int,
    alpha: Alpha = "bayes",
    replicates: int = 5,
    weight_decay: float = 1e-4,
    seed: int = 0,
    resume: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SweepTable:
    """Theory at every level beside simulation, over signal-to-noise ratios.

    Columns: ``snr``, ``alpha``, ``bayes_alpha``, ``bayes_error``; ``level1_``, ``level2_`` and
    ``level3_`` with ``outliers``, ``mini_bulk``, ``bulk``, grouped by rank (level 2: locations,
    empty where the bulk has absorbed the group, with ``level2_lower_edge``,
    ``level2_upper_edge`` and ``critical_snr_`` of both groups); ``symmetric_``,
    ``sampled_bayes_`` and ``fitted_`` with the same groups for simulated FIMs at symmetric,
    Bayes and fitted probabilities, means over replicates, with standard errors ``…_se``;
    ``fitted_alpha``, ``train_error``, ``test_error`` with theirs; and the three ratios of
    Papyan (2020) §8.2, as ``…_outliers_over_bulk``, for every one of these spectra but level 2's.

    Parameters
    ----------
    dim, num_classes, per_class
        D, C and N.
    snrs
        The values of t, ascending, from 0 to 64 (:func:`ccm.bayes_spectrum` has no more).
    alpha
        A number, or "bayes" or "measured"; see :class:`SweepConfiguration`.
    replicates
        Independent data sets at each SNR, at least 2.
    weight_decay, seed
        Of the fits; of the data. Every replicate has its own stream.
    resume
        A file that keeps finished replicates: if it exists, the work goes on from there and the
        table is the same as without the interruption.
    progress
        Called with how many replicates are done and how many there are.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range; ``ResumeError`` (a ValueError) if the resume file is
        of another configuration; ``SeparableDataError`` (a ValueError) for separable samples
        without weight decay.
    ConvergenceError
        If a fit does not converge.

    Examples
    --------
    >>> table = snr_sweep(4, 2, [1.0, 2.0], per_class=50, replicates=2)
    >>> bool(np.all(np.diff(table.column("bayes_error")) < 0))
    True
    """
    configuration = SweepConfiguration(
        dim, num_classes, tuple(snrs), per_class, alpha, replicates, weight_decay, seed
    )
    points = range(len(configuration.snrs))
    path = None if resume is None else Path(resume)
    journal = Journal(path, asdict(configuration), UNIT_COLUMNS)
    units = [(point, r) for point in points for r in range(replicates)]
    for done, (point, replicate) in enumerate(units):
        if progress is not None:
            progress(done, len(units))
        key = f"{point}/{replicate}"
        if journal.get(key) is None:
            journal.record(key, _replicate(configuration, point, replicate))
    if progress is not None:
        progress(len(units), len(units))
    rows = []
    for point in points:
        found = [journal.get(f"{point}/{r}") for r in range(replicates)]
        rows.append(_row(configuration, point, [unit for unit in found if unit is not None]))
    return SweepTable(configuration, tuple(rows))


def _replicate(configuration: SweepConfiguration, point: int, replicate: int) -> dict[str, float]:
    """One simulated data set, as numbers by column; its stream depends on its place alone."""
    model = configuration.model(point)
    rng = np.random.default_rng([configuration.seed, point, replicate])
    chosen = configuration.alpha
    alpha: float | None  # None: simulate takes the fitted classifier's
    if isinstance(chosen, str):
        alpha = model.bayes_alpha() if chosen == "bayes" else None
    else:
        alpha = chosen
    result = simulate(model, configuration.per_class, rng, alpha, configuration.weight_decay)
    numbers = {
        "used_alpha": result.alpha,
        "fitted_alpha": result.fitted_alpha,
        "train_error": result.train_error,
        "test_error": result.test_error,
    }
    spectra = (result.symmetric, result.bayes, result.fitted)
    for name, groups in zip(SPECTRA, spectra, strict=True):
        numbers |= _with_ratios(name, asdict(groups))
    return numbers


def _with_ratios(name: str, groups: Mapping[str, float]) -> dict[str, float]:
    """The groups and the three ratios of Papyan (2020) §8.2, under the spectrum's name."""
    columns = {f"{name}_{group}": groups[group] for group in GROUPS}
    for upper, lower in RATIOS:
        below = groups[lower]
        ratio = groups[upper] / below if below else math.nan
        columns[f"{name}_{upper}_over_{lower}"] = ratio
    return columns


UNIT_COLUMNS = frozenset(("used_alpha", "fitted_alpha", "train_error", "test_error")).union(
    *(_with_ratios(name, dict.fromkeys(GROUPS, 1.0)) for name in SPECTRA)
)


def _row(
    configuration: SweepConfiguration, point: int, units: list[dict[str, float]]
) -> dict[str, float]:
    """Theory at one SNR, and the means of its replicates."""
    model = configuration.model(point)
    alpha = float(np.mean([unit["used_alpha"] for unit in units]))
    law = finite_sample_law(model, alpha, configuration.per_class)
    row = {
        "snr": model.snr,
        "alpha": alpha,
        "bayes_alpha": model.bayes_alpha(),
        "bayes_error": model.bayes_error(),
    }
    level_1 = spectrum_group_means(symmetric_spectrum(model, alpha), model, model.num_classes)
    level_3 = spectrum_group_means(bayes_spectrum(model), model, model.num_classes - 1)
    row |= _with_ratios("level1", asdict(level_1))
    for label in ("outliers", "mini-bulk"):
        exists = label == "outliers" or model.num_classes > 2
        location = law.location(label) if exists else None
        column = label.replace("-", "_")
        row[f"level2_{column}"] = math.nan if location is None else location
        critical = law.critical_snr(label) if exists else math.nan
        row[f"critical_snr_{column}"] = critical if math.isfinite(critical) else math.nan
    row["level2_lower_edge"], row["level2_upper_edge"] = (
        (float(law.edges[0, 0]), float(law.edges[-1, 1])) if len(law.edges) else (0.0, 0.0)
    )
    row |= _with_ratios("level3", asdict(level_3))
    row |= dict(_means(units))
    return row


def _means(units: list[dict[str, float]]) -> Iterator[tuple[str, float]]:
    """Mean and standard error over replicates of every column."""
    for name in units[0]:
        if name == "used_alpha":
            continue
        values = np.array([unit[name] for unit in units])
        yield name, float(values.mean())
        yield f"{name}_se", float(values.std(ddof=1) / math.sqrt(values.size))
