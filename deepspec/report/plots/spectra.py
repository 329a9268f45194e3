"""Spectra as in Papyan (2020): G and its knockouts on a log axis (Fig. 5); Hess, G, E (Fig. 4)."""

from __future__ import annotations

import math
import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepspec.attribution import Spectrum, SplitAttribution
from deepspec.report.plots.histograms import linear_histogram, log_histogram
from deepspec.report.plots.style import GREY, PARTS, grey_grid, new_figure, styled

BINS = 90
LINEAR_BINS = 120
MOST_ENLARGED = 0.6
FLOOR = 0.05
WITHOUT = {
    "between_class": "class means removed",
    "cross_class": "cross-class means removed",
    "within_class": "scatter within classes removed",
    "own_class": "own-class means removed",
}


@styled
def log_spectrum_of_g(split: SplitAttribution) -> Figure:
    """The log-spectrum of G, coloured by cause, and what is left after each knockout below."""
    whole = split.whole
    low, high = 1e-5 * float(whole.top[0]), 3 * float(whole.top[0])
    symbol = whole.operator
    rows = ["", *WITHOUT]
    figure, axes = new_figure(len(rows), 1, 8.2, sharex=True, sharey=True)
    for place, part in enumerate(rows):
        panel = axes[place][0]
        if not part:
            _coloured(panel, whole, low, high)
            panel.set_title(f"{symbol}, each eigenvalue shared out among its causes")
        else:
            spectrum = split.left_without(part)
            centres, counts = log_histogram(spectrum, low, high, BINS)
            panel.fill_between(centres, FLOOR, counts, step="mid", color="#C9D3DA", lw=0)
            _outline(panel, log_histogram(whole, low, high, BINS), "black")
            panel.plot(whole.top, np.full(len(whole.top), 6.0), "v", color="white", mec=GREY, ms=4)
            panel.vlines(spectrum.top, FLOOR, 1.6, color="black", lw=1.3)
            panel.set_title(_row_title(spectrum.operator, WITHOUT[part]))
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlim(low, high)
        panel.axvline(split.edge, color="black", lw=0.8, ls=(0, (4, 3)))
        grey_grid(panel)
    limits = axes[0][0].get_ylim()
    axes[0][0].set_ylim(FLOOR, max(30.0, limits[1]))
    axes[2][0].set_ylabel("eigenvalues per bin (sticks: the top C, one each)")
    axes[-1][0].set_xlabel("eigenvalue λ")
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, ls="", label=look.name)
        for look in PARTS.values()
    ]
    handles += [
        Line2D([], [], color="black", lw=1.2, label=f"{symbol}, for comparison"),
        Line2D([], [], color="#C9D3DA", lw=7, label="what is left"),
        Line2D([], [], color="black", marker="|", ls="", mew=1.4, ms=9, label="its top C"),
        Line2D([], [], color="white", mec=GREY, marker="v", ls="", label=f"top C of {symbol}"),
        Line2D([], [], color="black", lw=0.8, ls=(0, (4, 3)), label="edge of the bulk"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _row_title(name: str, words: str) -> str:
    """Words as subscripts: ``G − G_class`` is not ``G − G_c`` and a stray ``lass``."""
    named = re.sub(r"(\w+)_(class|cross|within)", r"$\1_{\\mathrm{\2}}$", name)
    named = re.sub(r"(\w+)_\{c=c'\}", r"$\1_{c=c'}$", named)
    return f"{named}: {words}"


def _outline(panel: Axes, curve: tuple[np.ndarray, np.ndarray], colour: str) -> None:
    panel.step(curve[0], curve[1], where="mid", color=colour, lw=1.0)


def _coloured(panel: Axes, spectrum: Spectrum, low: float, high: float) -> None:
    """Bins shared out among causes in proportion; sticks in the colour of their main cause."""
    centres, total = log_histogram(spectrum, low, high, BINS)
    floor, height = FLOOR, np.maximum(np.log(np.maximum(total, 1e-12) / FLOOR), 0.0)
    bottom = np.full_like(total, floor)
    for part, look in PARTS.items():
        _, mine = log_histogram(spectrum, low, high, BINS, part)
        share = np.divide(mine, total, out=np.zeros_like(mine), where=total > 0)
        top = bottom * np.exp(height * share)
        panel.fill_between(centres, bottom, top, step="mid", color=look.colour, lw=0)
        bottom = top
    _outline(panel, (centres, total), "black")
    names = list(PARTS)
    shares = np.stack([spectrum.top_causes[part].numpy() for part in names])
    # Neighbours at different heights: their markers are wider than the gaps between them.
    for place, (value, main) in enumerate(
        zip(spectrum.top.tolist(), shares.argmax(axis=0), strict=True)
    ):
        look, tip = PARTS[names[main]], (2.5, 5.0, 10.0)[place % 3]
        panel.vlines(value, floor, tip, color=look.colour, lw=1.0)
        panel.plot(value, tip, look.marker, color=look.colour, ms=5, mec="white", mew=0.5)


@styled
def hessian_and_its_summands(split: SplitAttribution) -> Figure:
    """Hess, G and E: outliers as ticks, densities on a log axis; the bulk enlarged beside.

    The bulk is as wide as E; where that is most of the axis, there is nothing to enlarge.
    """
    spectra = split.hessian_spectra
    tops = [float(s.top.max()) for s in spectra if len(s.top)]
    lows = [float(s.nodes.min()) for s in spectra if len(s.nodes)]
    high, low = 1.08 * max(tops), 1.15 * min([*lows, -0.02 * max(tops)])
    of_e = next(s for s in spectra if s.operator == "E")
    extremes = [*of_e.top.abs().tolist(), *of_e.nodes.abs().tolist(), 0.02 * split.edge]
    zoom = 1.1 * max(extremes)
    ranges = [_with_an_edge_at_zero(low, high)]
    if 2 * zoom <= MOST_ENLARGED * (high - low):
        ranges.append((-zoom, zoom))
    figure, axes = new_figure(3, len(ranges), 6.0, sharey=True, width_ratios=(3, 2)[: len(ranges)])
    for place, spectrum in enumerate(spectra):
        for panel, (left, right) in zip(axes[place], ranges, strict=True):
            centres, counts = linear_histogram(spectrum, left, right, LINEAR_BINS)
            panel.fill_between(centres, FLOOR, counts, step="mid", color="#56B4E9", lw=0)
            _outline(panel, (centres, counts), "#0072B2")
            shown = spectrum.top[(spectrum.top >= left) & (spectrum.top <= right)]
            panel.vlines(shown, FLOOR, 1.0, color="#D55E00", lw=1.2)
            panel.plot(shown, np.full(len(shown), 1.0), "v", color="#D55E00", ms=4.5)
            panel.set_yscale("log")
            panel.set_xlim(left, right)
            grey_grid(panel)
        axes[place][0].set_title(TITLES[spectrum.operator])
    axes[0][0].set_ylim(bottom=FLOOR)
    axes[1][0].set_ylabel("eigenvalues per bin (triangles: single ones of the top)")
    for panel, (left, right) in zip(axes[-1], ranges, strict=True):
        panel.set_xlabel(f"eigenvalue λ (bins of {(right - left) / LINEAR_BINS:.2g})")
    if len(ranges) > 1:
        axes[0][1].set_title("the bulk, enlarged; narrower bins")
    return figure


def _with_an_edge_at_zero(low: float, high: float) -> tuple[float, float]:
    """So that no bin of a PSD matrix reaches below zero."""
    width = (high - low) / (LINEAR_BINS - 1)
    first = math.floor(low / width) * width
    return first, first + LINEAR_BINS * width


TITLES = {
    "Hess": "Hess = G + E",
    "G": "G (E subtracted)",
    "E": "E (G subtracted)",
}
