"""Figures of a sweep: eigenvalues against SNR, and misclassification against their ratios."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from ccm.bayes import bayes_spectrum
from ccm.finite_sample import FiniteSampleLaw, finite_sample_law
from ccm.model import CanonicalClassificationModel
from ccm.plots.levels import COLOURS, MARKERS, NAMES, new_figure, tidy
from ccm.simulation import spectrum_group_means
from ccm.sweep import GROUPS, RATIOS, SweepTable
from ccm.symmetric import symmetric_spectrum

CURVE_POINTS = 60


def _alphas(table: SweepTable, snrs: Float[np.ndarray, " g"]) -> list[float]:
    """α along a fine grid: computed where it is the Bayes value, interpolated where measured."""
    configuration = table.configuration
    if configuration.alpha != "bayes":
        return np.interp(snrs, table.column("snr"), table.column("alpha")).tolist()
    dim, classes = configuration.dim, configuration.num_classes
    return [CanonicalClassificationModel(dim, classes, t).bayes_alpha() for t in snrs]


def _laws(table: SweepTable, snrs: Float[np.ndarray, " g"]) -> list[FiniteSampleLaw]:
    configuration = table.configuration
    return [
        finite_sample_law(
            CanonicalClassificationModel(configuration.dim, configuration.num_classes, t),
            alpha,
            configuration.per_class,
        )
        for t, alpha in zip(snrs, _alphas(table, snrs), strict=True)
    ]


def _mark_transition(axes: Axes, laws: list[FiniteSampleLaw], label: str, height: float) -> None:
    """A dashed line where the group leaves the bulk for good, α moving with the SNR."""
    snrs = np.array([law.model.snr for law in laws])
    margin = snrs - np.array([law.critical_snr(label) for law in laws])
    colour = COLOURS[label.replace("-", "_")]
    for k in np.flatnonzero((margin[:-1] <= 0) & (margin[1:] > 0)):
        t = snrs[k] - margin[k] * (snrs[k + 1] - snrs[k]) / (margin[k + 1] - margin[k])
        axes.axvline(t, color=colour, lw=0.8, ls="--")
        axes.annotate(
            f"{label} detach at t = {t:.2f}",
            (t, height),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def plot_eigenvalues(table: SweepTable) -> Figure:
    """Eigenvalues against SNR, the phase transitions marked.

    Left, symmetric probabilities: levels 1 and 2 beside simulated FIMs. Right, level 3 beside
    fitted classifiers. Groups are by rank: an absorbed one shows the bulk's edge.

    Raises
    ------
    ValueError
        If the sweep has fewer than two SNRs.

    Examples
    --------
    >>> from ccm import snr_sweep
    >>> figure = plot_eigenvalues(snr_sweep(4, 2, [1.0, 2.0], per_class=30, replicates=2))
    >>> figure.axes[0].get_xlabel()
    'signal-to-noise ratio t'
    """
    measured = np.sort(table.column("snr"))
    if measured.size < 2 or measured[0] == measured[-1]:
        raise ValueError("a figure against SNR needs a sweep of at least two SNRs")
    laws = _laws(table, np.linspace(measured[0], measured[-1], CURVE_POINTS))
    snrs = np.array([law.model.snr for law in laws])
    groups = [group for group in GROUPS if np.isfinite(table.column(f"level1_{group}")).any()]
    configuration = table.configuration
    classes = configuration.num_classes
    optimal = [
        spectrum_group_means(bayes_spectrum(law.model), law.model, classes - 1) for law in laws
    ]
    figure = new_figure(7.2, 4.1)
    left, right = figure.subplots(1, 2, sharey=True)
    edges = [(law.edges[0, 0], law.edges[-1, 1]) if len(law.edges) else (0.0, 0.0) for law in laws]
    left.fill_between(snrs, *np.array(edges).T, color="#DDDDDD", label="bulk, level 2")
    for group in groups:
        label, colour = NAMES[group], COLOURS[group]
        level_1 = [symmetric_spectrum(law.model, law.alpha).mean(label) for law in laws]
        level_3 = [getattr(means, group) for means in optimal]
        left.plot(snrs, level_1, ":", color=colour, lw=1.4)
        right.plot(snrs, level_3, "-", color=colour, lw=1.6)
        if group != "bulk":
            level_2 = [law.location(label) for law in laws]
            located = [np.nan if z is None else z for z in level_2]
            left.plot(snrs, located, "-", color=colour, lw=1.6)
            _mark_transition(left, laws, label, 0.99 if group == "outliers" else 0.93)
        for axes, source in ((left, "symmetric"), (right, "fitted")):
            axes.errorbar(
                table.column("snr"),
                table.column(f"{source}_{group}"),
                2 * table.column(f"{source}_{group}_se"),
                fmt=MARKERS[group],
                ms=4,
                mfc="white",
                color=colour,
                label=f"{label}, simulated",
            )
    left.plot([], [], ":", color="black", label="level 1 (N = ∞)")
    left.plot([], [], "-", color="black", label="level 2 (this N)")
    right.plot([], [], "-", color="black", label="level 3 (Bayes, N = ∞)")
    left.set_title("symmetric probabilities", fontsize=9)
    right.set_title("fitted classifier", fontsize=9)
    left.set_ylabel("eigenvalue of the FIM")
    left.set_yscale("log")
    seen = np.concatenate(
        [table.column(f"{s}_{g}") for s in ("symmetric", "fitted") for g in groups]
    )
    seen = seen[seen > 0]
    if seen.size:
        left.set_ylim(seen.min() / 3, seen.max() * 6)
    for axes in (left, right):
        axes.set_xlabel("signal-to-noise ratio t")
        axes.legend(fontsize=7, framealpha=0.85, edgecolor="none", loc="lower left")
        tidy(axes)
    figure.suptitle(
        f"D = {configuration.dim}, C = {classes}, "
        f"N = {configuration.per_class} a class; bars ±2 s.e.",
        fontsize=9,
    )
    return figure


def plot_misclassification(table: SweepTable) -> Figure:
    """Misclassification against the ratios of Papyan (2020) §8.2, theory beside fits.

    Raises
    ------
    ValueError
        If no error rate in the sweep is above zero.

    Examples
    --------
    >>> from ccm import snr_sweep
    >>> figure = plot_misclassification(snr_sweep(4, 2, [1.0, 2.0], per_class=30, replicates=2))
    >>> figure.axes[0].get_xlabel()
    'outliers / bulk'
    """
    errors = table.column("test_error")
    if not (errors > 0).any():
        raise ValueError("every test error is zero: sweep lower SNRs or more samples")
    ratios = [r for r in RATIOS if np.isfinite(table.column(f"level1_{r[0]}_over_{r[1]}")).any()]
    figure = new_figure(7.2, 3.0)
    panels = figure.subplots(1, len(ratios), sharey=True, squeeze=False)[0]
    for axes, (upper, lower) in zip(panels, ratios, strict=True):
        ratio = f"{upper}_over_{lower}"
        for source, style, colour, label in (
            ("level1", ":", "#4D4D4D", "level 1, Bayes error"),
            ("level3", "-", "#0072B2", "level 3, Bayes error"),
        ):
            x = table.column(f"{source}_{ratio}")
            axes.plot(x, table.column("bayes_error"), style, color=colour, lw=1.5, label=label)
        seen = errors > 0
        axes.errorbar(
            table.column(f"fitted_{ratio}")[seen],
            errors[seen],
            xerr=2 * table.column(f"fitted_{ratio}_se")[seen],
            yerr=np.minimum(2 * table.column("test_error_se")[seen], 0.9 * errors[seen]),
            fmt="o",
            ms=4,
            mfc="white",
            color="#D55E00",
            label="fitted, test error (±2 s.e.)",
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{NAMES[upper]} / {NAMES[lower]}")
        tidy(axes)
    panels[0].set_ylabel("misclassification rate")
    panels[0].legend(fontsize=7, frameon=False, loc="lower left")
    return figure
