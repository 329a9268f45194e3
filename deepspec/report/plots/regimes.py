"""Where each claim becomes true: the share removed against p/(nC)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepspec.attribution import CLAIMS
from deepspec.attribution.verdicts import SUPPORT_SHARE
from deepspec.report.plots.style import GREY, MARKERS, PALETTE, grey_grid, new_figure, styled


@dataclass(frozen=True, kw_only=True)
class Place:
    """One claim about one net: its regime, and what became of the claim."""

    claim: str
    parameters: int
    samples: int
    classes: int
    epoch: int
    removed: float
    answer: str

    @property
    def regime(self) -> float:
        """p/(nC)."""
        return self.parameters / (self.samples * self.classes)


@styled
def regime_map(places: Sequence[Place]) -> Figure:
    """A panel a claim; colour and marker say n, a full one that the claim is supported."""
    figure, axes = new_figure(2, 3, 5.2, sharex=True, sharey=True)
    sizes = sorted({place.samples for place in places})
    for panel, claim in zip([a for row in axes for a in row], CLAIMS, strict=True):
        for place in places:
            if place.claim != claim or math.isnan(place.removed):
                continue
            index = sizes.index(place.samples)
            colour = PALETTE[index % len(PALETTE)]
            face = colour if place.answer == "supported" else "white"
            marker = MARKERS[index % len(MARKERS)]
            panel.plot(
                place.regime, place.removed, marker, color=face, mec=colour, ms=5, mew=1.0, ls=""
            )
        panel.axhline(SUPPORT_SHARE, color=GREY, lw=0.8, ls=(0, (4, 3)))
        panel.set_xscale("log")
        panel.set_ylim(-0.03, 1.05)
        panel.set_title(f"{claim} ← {CLAIMS[claim].cause}", fontsize=8.5)
        grey_grid(panel)
    for panel in axes[1]:
        panel.set_xlabel("p / (nC)")
    for row in axes:
        row[0].set_ylabel("share removed")
    handles = [
        Line2D([], [], ls="", marker=MARKERS[i % 10], color=PALETTE[i % 10], label=f"n = {n}")
        for i, n in enumerate(sizes)
    ]
    handles.append(
        Line2D([], [], ls="", marker="o", color="white", mec="black", label="not supported")
    )
    handles.append(Line2D([], [], ls="", marker="o", color="black", label="supported"))
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure
