"""Spectra layer by layer: what a knockout takes from each, and means beside the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from deepspec.report.plots.style import GREY, grey_grid, new_figure, styled

BLUE, ORANGE, COLUMNS = "#0072B2", "#D55E00", 4
LOOKS = (("o-", BLUE), ("^-.", ORANGE), ("s--", GREY))
Pair = tuple[Float[Tensor, " k"], Float[Tensor, " k"]]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // COLUMNS)
    figure, axes = new_figure(rows, min(COLUMNS, count), 2.0 * rows + 0.7)
    panels = [panel for row in axes for panel in row]
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels


@styled
def knockouts(layers: Mapping[str, Pair], count: int, knocked_out: str) -> Figure:
    """Each value against the one of its place after a knockout (Papyan 2020, Figs. 7, 9, 13).

    On the line nothing has changed; the first ``count`` are marked.
    """
    figure, panels = _panels(len(layers))
    for panel, (name, (before, after)) in zip(panels, layers.items(), strict=False):
        low = 1e-6 * float(before[0])
        x = np.maximum(before.numpy(), low)
        y = np.full_like(x, low)
        y[: len(after)] = np.maximum(after.numpy()[: len(x)], low)
        panel.plot([low, x[0]], [low, x[0]], color="black", lw=0.8)
        panel.plot(x[count:], y[count:], ".", color=ORANGE, ms=4)
        panel.plot(x[:count], y[:count], "o", color=BLUE, ms=4)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(name)
        grey_grid(panel)
    figure.supxlabel("before", fontsize=10)
    figure.supylabel(f"without {knocked_out}", fontsize=10)
    handles = [
        Line2D([], [], ls="", marker="o", color=BLUE, label=f"the top {count}"),
        Line2D([], [], ls="", marker=".", color=ORANGE, label="the rest"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


@styled
def screes_by_layer(
    layers: Mapping[str, Sequence[Float[Tensor, " k"]]],
    names: Sequence[str],
    count: int,
    whiskers: int = 0,
) -> Figure:
    """The top eigenvalues of several matrices of each layer (Papyan 2020, Figs. 8 and 10).

    With ``whiskers`` = C a bar from the second to the C-th of the second matrix, and its ratio.
    """
    figure, panels = _panels(len(layers))
    for panel, (name, several) in zip(panels, layers.items(), strict=False):
        for values, (line, colour) in zip(several, LOOKS, strict=False):
            top = values[:count].numpy()
            top = top[top > 1e-12 * top[:1].max(initial=0.0)]  # not what rounding leaves
            panel.plot(np.arange(1, len(top) + 1), top, line, color=colour, ms=3, lw=0.9)
        edges = several[1][1:whiskers].numpy() if whiskers else np.empty(0)
        if len(edges) == whiskers - 1 and len(edges) > 1 and edges[-1] > 0:
            ends, middle = (edges[-1], edges[0]), edges[0] ** 0.5 * edges[-1] ** 0.5
            place = 1.2 * whiskers
            panel.plot([place, place], ends, "_-", color="black", ms=6, lw=1)
            text = f"{edges[0] / edges[-1]:.2g}×"
            panel.annotate(text, (place, middle), (3, 0), textcoords="offset points", fontsize=8)
        panel.set_yscale("log")
        panel.set_title(name)
        grey_grid(panel)
    figure.supxlabel("number i", fontsize=10)
    figure.supylabel("eigenvalue", fontsize=10)
    handles = [
        Line2D([], [], color=colour, marker=line[0], label=name)
        for name, (line, colour) in zip(names, LOOKS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure
