"""Scree plots (Papyan 2019, Fig. 7) with predictions; how well a cause explains its feature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from deepspec.attribution import CLAIMS, Finding, SplitAttribution
from deepspec.attribution.summary import removed
from deepspec.report.plots.style import GREY, PARTS, grey_grid, new_figure, styled

ANSWERS = {"supported": "#009E73", "not supported": "#D55E00", "not decided": "#7F7F7F"}
LEAST_ERROR = 1e-3
NULLS = {
    "shuffled labels": ("s", "shuffled labels"),
    "regrouped samples": ("D", "random groups"),
    "a random subspace": ("x", "random subspace"),
}


@styled
def scree(split: SplitAttribution) -> Figure:
    """The top eigenvalues of G, of its means, of its class means; and predictions beside them."""
    predicted = split.predicted
    place = np.arange(1, len(predicted.true) + 1)
    figure, axes = new_figure(1, 2, 3.9)
    left, right = axes[0]
    left.plot(place, predicted.true, "o-", color="black", label="G")
    left.plot(place, predicted.means, "s--", color="#009E73", label="all means ($G_{1+2}$)")
    left.plot(place, predicted.class_only, "^-.", color="#D55E00", label="class means ($G_1$)")
    left.axhline(split.edge, color=GREY, lw=0.8, ls=(0, (4, 3)), label="edge of the bulk")
    left.set_yscale("log")
    left.set_ylabel("eigenvalue λ")
    left.set_title("averages stay below the truth")
    looks = (
        ("means", "s", "--", "#009E73", "all means"),
        ("first_order", "D", ":", "#CC79A7", "first order"),
        ("root", "v", "-.", "#0072B2", "root, one by one"),
        ("coupled", "o", "-", "black", "coupled"),
    )
    smaller = False
    for method, marker, line, colour, label in looks:
        error = 100 * predicted.relative_error(method).abs().numpy()
        right.plot(
            place, np.maximum(error, LEAST_ERROR), marker, ls=line, color=colour, label=label, ms=5
        )
        tiny = place[error < LEAST_ERROR]
        floor = np.full(len(tiny), LEAST_ERROR)
        right.plot(tiny, floor, marker, color="white", mec=colour, ms=5, zorder=3)
        smaller |= len(tiny) > 0
    right.axhline(1.0, color=GREY, lw=0.8, ls=(0, (4, 3)), label="1 %")
    if smaller:
        right.plot([], [], "o", color="white", mec="black", ms=5, label=f"below {LEAST_ERROR:g} %")
    right.set_yscale("log")
    right.set_ylabel("relative error (%)")
    right.set_title("predictions of G's eigenvalues")
    for panel in (left, right):
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=8.5)
        panel.set_xlabel("number i of the eigenvalue")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        grey_grid(panel)
    return figure


@styled
def verdict_chart(split: SplitAttribution) -> Figure:
    """For every claim: how much of the feature goes with its cause, beside the nulls."""
    figure, axes = new_figure(1, 1, 0.62 * len(split.findings) + 1.5)
    handles = _draw_bars(split, axes[0][0])
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def draw_verdicts(split: SplitAttribution, panel: Axes) -> None:
    """The same on axes that are part of another figure, with a legend of their own."""
    handles = _draw_bars(split, panel)
    panel.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def _draw_bars(split: SplitAttribution, panel: Axes) -> list[Artist]:
    """Bars, nulls and words; returns what a legend needs."""
    findings = list(split.findings)
    for row, finding in enumerate(reversed(findings)):
        if finding.present and not math.isnan(finding.removed):
            _measured(panel, row, finding)
        panel.annotate(
            f"{finding.answer}\n({removed(finding)})",
            (1.02, row),
            va="center",
            xycoords=("data", "data"),
            annotation_clip=False,
            fontsize=9,
        )
    labels = [f"{CLAIMS[f.claim].feature}\n← {CLAIMS[f.claim].cause}" for f in reversed(findings)]
    panel.set_yticks(range(len(findings)), labels)
    panel.set_xlim(-0.02, 1.0)
    panel.set_ylim(-0.6, len(findings) - 0.4)
    panel.axvline(0.5, color=GREY, lw=0.8, ls=(0, (4, 3)))
    panel.set_xlabel("share of the feature that goes when its cause is removed")
    handles: list[Artist] = [
        Patch(color=colour, label=f"by subtraction: {answer}") for answer, colour in ANSWERS.items()
    ]
    handles.append(_mark("|", "black", "by projection", ms=12, mew=2))
    used = {name for finding in findings for name in finding.nulls}
    for name, (marker, words) in NULLS.items():
        if name in used:
            face = "black" if marker == "x" else "white"
            handles.append(_mark(marker, face, f"null: {words}"))
    if any(not math.isnan(finding.untrained) for finding in findings):
        handles.append(_mark("*", "#E69F00", "net as built", ms=9, mew=0.7))
    grey_grid(panel)
    return handles


def _measured(panel: Axes, row: int, finding: Finding) -> None:
    """One claim's bar, its stroke and its marks."""
    panel.barh(row, finding.removed, height=0.42, color=ANSWERS[finding.answer])
    if not math.isnan(finding.by_projection):
        panel.plot(finding.by_projection, row, "|", color="black", ms=15, mew=2)
    for name, draws in finding.nulls.items():
        marker, _ = NULLS[name]
        face = "black" if marker == "x" else "white"
        rows = np.full(len(draws), row)
        panel.plot(draws, rows, marker, color=face, mec="black", ms=5, mew=0.9)
    if not math.isnan(finding.untrained):
        panel.plot(finding.untrained, row, "*", color="#E69F00", mec="black", ms=9, mew=0.7)


def _mark(marker: str, face: str, label: str, **look: Any) -> Line2D:
    """A handle for the legend."""
    return Line2D([], [], ls="", marker=marker, color=face, mec="black", label=label, **look)


@styled
def parts_chart(split: SplitAttribution) -> Figure:
    """The share of each part in tr G, in both conventions, and in each top eigenvalue."""
    figure, axes = new_figure(1, 2, 2.9, width_ratios=(1, 2))
    left, right = axes[0]
    names = [d.convention for d in split.decompositions]
    base = np.zeros(len(names))
    for part, look in PARTS.items():
        shares = np.array([d.part(part).share for d in split.decompositions])
        left.bar(
            names,
            shares,
            bottom=base,
            color=look.colour,
            hatch=look.hatch,
            label=look.name,
            width=0.6,
        )
        base += shares
    spectrum = split.whole
    left.set_ylabel(f"share of tr {spectrum.operator}")
    left.set_title(f"trace of {spectrum.operator}")
    place = np.arange(1, len(spectrum.top) + 1)
    base = np.zeros(len(place))
    for part, look in PARTS.items():
        shares = spectrum.top_causes[part].numpy()
        right.bar(place, shares, bottom=base, color=look.colour, hatch=look.hatch, width=0.8)
        base += shares
    right.set_xlabel(f"number i of the eigenvalue of {spectrum.operator}")
    right.set_title("each of the top C eigenvalues")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
