"""How spectra move with training and sample size: grids of epochs × n per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepspec.attribution import Spectrum
from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.report.plots.histograms import linear_histogram, log_histogram
from deepspec.report.plots.style import GREY, MARKERS, PALETTE, grey_grid, new_figure, styled

Table = Mapping[tuple[int, int], SnapshotSpectra]
"""By n per class and epoch."""

BINS, FLOOR = 70, 0.3
BLUE, ORANGE, YELLOW, GREEN, TEAL, RED = (
    "#56B4E9",
    "#D55E00",
    "#E6C200",
    "#009E73",
    "#00A6A6",
    "#B00020",
)
MARKS = (
    ("spectrum", ORANGE, "v", "top C of G"),
    ("class_values", YELLOW, "^", "$G_{\\mathrm{class}}$"),
    ("cross_values", GREEN, "|", "$G_{\\mathrm{cross}}$"),
    ("own_values", TEAL, "x", "$G_{c=c'}$"),
    ("within_means", RED, "o", "mean of $G_{\\mathrm{within},c}$"),
)
LEVELS = (
    ("G0", TEAL, "x", "$G_0$"),
    ("G1", ORANGE, "^", "$G_1$"),
    ("G2", RED, "|", "$G_2$"),
    ("G1+2", GREEN, "s", "$G_{1+2}$"),
)


def grid(
    table: Table, draw: Callable[[Axes, SnapshotSpectra], None], handles: list[Line2D], x: str
) -> Figure:
    """Rows of epochs, columns of sample sizes, and one legend."""
    sizes = sorted({n for n, _ in table})
    epochs = sorted({epoch for _, epoch in table})
    figure, axes = new_figure(len(epochs), len(sizes), 0.9 + 1.5 * len(epochs))
    for row, epoch in enumerate(epochs):
        for column, n in enumerate(sizes):
            panel = axes[row][column]
            if (n, epoch) in table:
                draw(panel, table[n, epoch])
                grey_grid(panel)
            else:
                panel.set_axis_off()
            if row == 0:
                panel.set_title(f"{n} per class")
            if column == 0:
                panel.set_ylabel(f"epoch {epoch}")
            if row == len(epochs) - 1:
                panel.set_xlabel(x)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)))
    return figure


@styled
def log_spectra(table: Table) -> Figure:
    """The log-spectrum of G with its causes as marks (Papyan 2020, Fig. 6; 2018, Fig. 7).

    One axis for all panels, so that bulks can be seen to part.
    """
    high = 3 * max(float(moment.spectrum.top[0]) for moment in table.values())
    low = 1e-7 * high
    handles = [Line2D([], [], color=BLUE, lw=6, label="G, without its top C")]
    handles += [
        Line2D([], [], ls="", marker=marker, color=colour, label=label, mew=1.2)
        for _, colour, marker, label in MARKS
    ]

    def draw(panel: Axes, moment: SnapshotSpectra) -> None:
        _log_bulk(panel, moment.spectrum, low, high)
        top = panel.get_ylim()[1]
        for height, (name, colour, marker, _) in enumerate(MARKS, start=1):
            found = getattr(moment, name)
            values = (found.top if isinstance(found, Spectrum) else found).numpy()
            values = values[values > low]
            at = np.full(len(values), top * 3.0 ** (2.2 * height))
            panel.plot(values, at, marker, color=colour, ms=5, mew=1.0)
        panel.set_ylim(FLOOR, top * 3.0**13)
        _log_axes(panel, low, high)

    return grid(table, draw, handles, "eigenvalue λ")


def _log_bulk(panel: Axes, spectrum: Spectrum, low: float, high: float) -> None:
    centres, counts = log_histogram(spectrum, low, high, BINS)
    panel.fill_between(centres, FLOOR, np.maximum(counts, FLOOR), step="mid", color=BLUE, lw=0)
    panel.set_yscale("log")
    panel.set_ylim(FLOOR, max(10.0, 2 * float(counts.max())))


def _log_axes(panel: Axes, low: float, high: float) -> None:
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.set_yticks([1, 100], labels=["1", "100"])
    panel.minorticks_off()


@styled
def levels(table: Table) -> Figure:
    """The density of G and the eigenvalues of G0, G1, G2, G1+2 (Papyan 2019, Fig. 6)."""
    handles = [Line2D([], [], color=BLUE, lw=6, label="G, without its top C")]
    handles += [
        Line2D([], [], ls="", marker=marker, color=colour, label=label, mew=1.2)
        for _, colour, marker, label in LEVELS
    ]
    handles.append(Line2D([], [], ls="", marker="v", color="black", label="top C of G"))

    def draw(panel: Axes, moment: SnapshotSpectra) -> None:
        high = 1.08 * float(moment.spectrum.top[0])
        centres, counts = linear_histogram(moment.spectrum, -0.02 * high, high, BINS)
        panel.fill_between(centres, FLOOR, np.maximum(counts, FLOOR), step="mid", color=BLUE, lw=0)
        panel.set_yscale("log")
        top = max(10.0, float(counts.max()))
        panel.plot(moment.spectrum.top, np.full(len(moment.spectrum.top), 2.0), "kv", ms=4)
        for height, (name, colour, marker, _) in enumerate(LEVELS, start=1):
            values = moment.levels[name].numpy()
            at = np.full(len(values), top * 3.0 ** (2 * height))
            panel.plot(values, at, marker, color=colour, ms=4.5)
        panel.set_ylim(FLOOR, top * 3.0**10)
        panel.set_yticks([1, 100], labels=["1", "100"])
        panel.minorticks_off()

    return grid(table, draw, handles, "eigenvalue λ")


@styled
def hessians(table: Table) -> Figure:
    """Hess, G and E, axes in units of E's edge (Papyan 2018, Fig. 6).

    Raises
    ------
    ValueError
        If Hess and E were not measured.
    """
    if not all(moment.hessian for moment in table.values()):
        raise ValueError(
            "expected spectra of Hess and E, but the sweep left them out; set hessian = true in "
            "[analysis] and give deepspec sweep again"
        )
    looks = (("Hess", "#CC3311", 10.0), ("G", GREEN, 3.0), ("E", "#0072B2", 1.0))
    handles = [Line2D([], [], color=colour, label=name) for name, colour, _ in looks]
    handles.append(Line2D([], [], ls="", marker="v", color=GREY, label="top C of Hess, of G"))

    def draw(panel: Axes, moment: SnapshotSpectra) -> None:
        edge = moment.edge_of_e
        spectra = {found.operator: found for found in moment.hessian}
        spectra["G"] = moment.spectrum
        high = 1.1 * max(float(s.top.max()) for s in spectra.values() if len(s.top))
        high, low = max(high, 1.2 * edge), -1.3 * edge
        for name, colour, height in looks:
            centres, counts = linear_histogram(spectra[name], low, high, BINS)
            panel.step(centres / edge, np.maximum(counts, FLOOR), where="mid", color=colour, lw=1.0)
            top = spectra[name].top.numpy()
            panel.plot(top / edge, np.full(len(top), height), "v", color=colour, ms=3.5)
        panel.set_yscale("log")
        panel.set_ylim(bottom=FLOOR)

    return grid(table, draw, handles, "λ / edge of E")


@styled
def screes(table: Table) -> Figure:
    """The top C eigenvalues of G1, G1+2 and G (Papyan 2019, Fig. 7)."""
    looks = (("G1", ORANGE, "^-."), ("G1+2", GREEN, "s--"))
    handles = [
        Line2D([], [], color=ORANGE, marker="^", ls="-.", label="$G_1$"),
        Line2D([], [], color=GREEN, marker="s", ls="--", label="$G_{1+2}$"),
        Line2D([], [], color="#0072B2", marker="o", label="G"),
    ]

    def draw(panel: Axes, moment: SnapshotSpectra) -> None:
        count = len(moment.spectrum.top)
        place = np.arange(1, count + 1)
        for name, colour, line in looks:
            values = moment.levels[name].numpy()[:count]
            panel.plot(place[: len(values)], values, line, color=colour, ms=3.5, lw=1)
        panel.plot(place, moment.spectrum.top, "o-", color="#0072B2", ms=3.5, lw=1)
        panel.set_yscale("log")

    return grid(table, draw, handles, "number i")


@styled
def errors(
    curves: Mapping[int, Sequence[float]], peaks: Mapping[int, float], kinks: Mapping[int, float]
) -> Figure:
    """Training error by epoch, the peak of tr G as a circle (Papyan 2018, Fig. 10).

    A grey stroke is the kink of the curve.
    """
    figure, axes = new_figure(1, 1, 3.4)
    panel = axes[0][0]
    for place, (n, values) in enumerate(sorted(curves.items())):
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        epochs = np.arange(1, len(values) + 1)
        panel.plot(
            epochs, values, color=colour, marker=marker, ms=3.5, lw=1, label=f"{n} per class"
        )
        if peaks.get(n, 0.0) >= 1:
            at = peaks[n]
            panel.plot(at, values[round(at) - 1], "o", mfc="none", mec=colour, ms=13, mew=1.6)
        if np.isfinite(kinks.get(n, np.nan)):
            at = kinks[n]
            panel.plot(at, values[round(at) - 1], "|", color=GREY, ms=18, mew=1.6)
    panel.plot([], [], "o", mfc="none", mec="black", ms=11, label="peak of tr G, where analysed")
    panel.plot([], [], "|", color=GREY, ms=13, mew=1.6, label="kink of the error")
    panel.set_xscale("log")
    panel.set_xlabel("epoch")
    panel.set_ylabel("training error")
    panel.legend(loc="upper right")
    grey_grid(panel)
    return figure
