"""Curves along the SNR: eigenvalues with their phase transitions, and ratios against errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from ccm.bayes import bayes_spectrum
from ccm.explore.levels import groups_of
from ccm.explore.state import LARGEST
from ccm.finite_sample import FiniteSampleLaw, finite_sample_law
from ccm.model import CanonicalClassificationModel
from ccm.simulation import GroupMeans
from ccm.spectrum import Level, Spectrum
from ccm.sweep import RATIOS
from ccm.symmetric import symmetric_spectrum

SNR_GRID = np.linspace(0.0, LARGEST["snr"], 61)
SNR_GRID.flags.writeable = False
Curve = Float[np.ndarray, " 61"]
Alpha = float | None  # None: the Bayes classifier's, at each SNR


@dataclass(frozen=True, kw_only=True)
class Transition:
    """A group leaves the bulk (``detached``) or is absorbed by it, at this SNR."""

    group: str
    snr: float
    detached: bool


@dataclass(frozen=True, kw_only=True)
class SnrCurves:
    """Every level's eigenvalues on ``SNR_GRID``; NaN where there is none."""

    level_1: dict[str, Curve]
    level_2: dict[str, Curve]
    lower_edge: Curve
    upper_edge: Curve
    level_3: dict[str, Curve]
    transitions: tuple[Transition, ...]


@dataclass(frozen=True, kw_only=True)
class RatioCurve:
    """One ratio of Papyan (2020) §8.2 at levels 1 and 3 on ``SNR_GRID``, the Bayes error beside."""

    upper: str
    lower: str
    level_1: Curve
    level_3: Curve


def rank_means(spectrum: Spectrum, num_classes: int, outliers: int) -> GroupMeans:
    """What :func:`ccm.spectrum_group_means` gives, from the levels alone: D may be large.

    Examples
    --------
    >>> rank_means(Spectrum.of([Level(2.0, 1, "a"), Level(1.0, 1, "b"), Level(0, 2, "n")]), 2, 1)
    GroupMeans(outliers=2.0, mini_bulk=1.0, bulk=nan)
    """
    signal = num_classes * (num_classes - 1)
    null = spectrum.size // num_classes  # the D smallest eigenvalues belong to no group
    ends = (0, outliers, signal, spectrum.size - null)
    means = []
    for first, last in pairwise(ends):
        total, start, values = 0.0, 0, []
        for level in spectrum.levels:
            inside = min(start + level.multiplicity, last) - max(start, first)
            if inside > 0:
                values.append(level.value)
                total += inside * level.value
            start += level.multiplicity
        if not values:
            means.append(math.nan)
        else:  # a value that repeats is its own mean to the last digit
            means.append(values[0] if len(values) == 1 else total / (last - first))
    return GroupMeans(*means)


@lru_cache(maxsize=8192)
def _bayes_levels(num_classes: int, snr: float) -> tuple[float, tuple[Level, ...]]:
    """α and the levels of signal at the Bayes classifier: no D in them."""
    model = CanonicalClassificationModel(num_classes, num_classes, snr)
    return model.bayes_alpha(), bayes_spectrum(model).levels


def _bayes(dim: int, num_classes: int, snr: float) -> Spectrum:
    """:func:`ccm.bayes_spectrum`, of which only the bulk and the null depend on D."""
    alpha, levels = _bayes_levels(num_classes, snr)
    own = [level for level in levels if level.label != "null"]
    if dim > num_classes:
        bulk = (dim - num_classes) * (num_classes - 1)
        own.append(Level(alpha / (num_classes - 1), bulk, "bulk"))
    return Spectrum.of([*own, Level(0.0, dim, "null")])


def bayes_alpha(num_classes: int, snr: float) -> float:
    """α of the Bayes classifier, remembered.

    Examples
    --------
    >>> round(bayes_alpha(5, 2.0), 10)
    0.3002192183
    """
    return _bayes_levels(num_classes, snr)[0]


@lru_cache(maxsize=64)
def bayes_errors(num_classes: int) -> Curve:
    """The Bayes error on ``SNR_GRID``.

    Examples
    --------
    >>> round(float(bayes_errors(4)[0]), 12)
    0.75
    """
    models = (CanonicalClassificationModel(num_classes, num_classes, t) for t in SNR_GRID)
    return np.array([model.bayes_error() for model in models])


def _laws(dim: int, num_classes: int, per_class: int, alpha: Alpha) -> list[FiniteSampleLaw]:
    return [_law(dim, num_classes, per_class, alpha, float(t)) for t in SNR_GRID]


def _law(dim: int, num_classes: int, per_class: int, alpha: Alpha, snr: float) -> FiniteSampleLaw:
    here = bayes_alpha(num_classes, snr) if alpha is None else alpha
    return finite_sample_law(CanonicalClassificationModel(dim, num_classes, snr), here, per_class)


@lru_cache(maxsize=32)
def snr_curves(dim: int, num_classes: int, per_class: int, alpha: Alpha) -> SnrCurves:
    """Eigenvalues against SNR; α fixed, or (None) the Bayes classifier's at each SNR.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    Examples
    --------
    For C = 2 and α = 1/2 the outliers are detached from t² = C √δ on, here with δ = 1/4:

    >>> snr_curves(16, 2, 32, 0.5).transitions
    (Transition(group='outliers', snr=1.0, detached=True),)
    """
    laws = _laws(dim, num_classes, per_class, alpha)
    level_1 = _by_label([symmetric_spectrum(law.model, law.alpha) for law in laws])
    level_3 = _by_label([_bayes(dim, num_classes, float(t)) for t in SNR_GRID])
    groups = groups_of(num_classes)
    level_2 = {group: np.array([_or_nan(law.location(group)) for law in laws]) for group in groups}
    edges = [law.edges for law in laws]
    transitions: list[Transition] = []
    for group in groups:
        if alpha is None:
            transitions += _moving(group, dim, num_classes, per_class, laws)
        else:
            windows = laws[0].snr_windows(group)
            transitions += [Transition(group=group, snr=w[0], detached=True) for w in windows]
            transitions += [Transition(group=group, snr=w[1], detached=False) for w in windows]
    return SnrCurves(
        level_1=level_1,
        level_2=level_2,
        lower_edge=np.array([e[0, 0] if len(e) else math.nan for e in edges]),
        upper_edge=np.array([e[-1, 1] if len(e) else math.nan for e in edges]),
        level_3=level_3,
        transitions=tuple(
            sorted(
                (t for t in transitions if 0 < t.snr <= SNR_GRID[-1]), key=lambda found: found.snr
            )
        ),
    )


def _moving(
    group: str, dim: int, num_classes: int, per_class: int, laws: list[FiniteSampleLaw]
) -> list[Transition]:
    """Where a group leaves the whole bulk when α moves with the SNR: t = critical SNR at α(t)."""

    def margin(snr: float) -> float:
        law = _law(dim, num_classes, per_class, None, snr)
        return snr - law.critical_snr(group)

    margins = np.array([law.model.snr - law.critical_snr(group) for law in laws])
    found = []
    for k in np.flatnonzero((margins[:-1] < 0) != (margins[1:] < 0)):
        snr = _crossing(margin, float(SNR_GRID[k]), float(SNR_GRID[k + 1]))
        found.append(Transition(group=group, snr=snr, detached=bool(margins[k] < 0)))
    return found


def _crossing(margin: Callable[[float], float], low: float, high: float) -> float:
    return float(brentq(margin, low, high, xtol=1e-6))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _by_label(spectra: list[Spectrum]) -> dict[str, Curve]:
    """A curve for each label but the null, NaN where a spectrum does not have it."""
    labels = dict.fromkeys(lv.label for spectrum in spectra for lv in spectrum.levels)
    curves = {}
    for label in labels:
        if label != "null":
            values = [{lv.label: lv.value for lv in s.levels}.get(label) for s in spectra]
            curves[label] = np.array([_or_nan(value) for value in values])
    return curves


def ratios_at(
    dim: int, num_classes: int, snr: float, alpha: Alpha
) -> dict[tuple[str, str], tuple[float, float]]:
    """The ratios of Papyan (2020) §8.2 at levels 1 and 3, groups by rank; NaN without such a group.

    Examples
    --------
    >>> ratios = ratios_at(6, 3, 2.0, 0.5)[("outliers", "bulk")]
    >>> round(ratios[0], 12)  # 0.8125 / 0.3125
    2.6
    """
    here = bayes_alpha(num_classes, snr) if alpha is None else alpha
    model = CanonicalClassificationModel(dim, num_classes, snr)
    level_1 = rank_means(symmetric_spectrum(model, here), num_classes, num_classes)
    level_3 = rank_means(_bayes(dim, num_classes, snr), num_classes, num_classes - 1)
    return {
        (upper, lower): (
            _ratio(getattr(level_1, upper), getattr(level_1, lower)),
            _ratio(getattr(level_3, upper), getattr(level_3, lower)),
        )
        for upper, lower in RATIOS
    }


def _ratio(upper: float, lower: float) -> float:
    return upper / lower if lower > 0 else math.nan


@lru_cache(maxsize=32)
def ratio_curves(dim: int, num_classes: int, alpha: Alpha) -> tuple[RatioCurve, ...]:
    """Those of the three ratios that exist, along the SNR.

    Examples
    --------
    >>> [(curve.upper, curve.lower) for curve in ratio_curves(4, 2, None)]
    [('outliers', 'bulk')]
    """
    absent = {"mini_bulk"} if num_classes == 2 else set()
    if dim == num_classes:
        absent.add("bulk")
    points = [ratios_at(dim, num_classes, float(t), alpha) for t in SNR_GRID]
    curves = []
    for upper, lower in RATIOS:
        level_1, level_3 = np.array([point[(upper, lower)] for point in points]).T
        if not {upper, lower} & absent:
            curves.append(RatioCurve(upper=upper, lower=lower, level_1=level_1, level_3=level_3))
    return tuple(curves)
