"""How every figure looks: colours and markers that a colour-blind reader and a grey print tell."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Arguments = ParamSpec("Arguments")

WIDTH = 7.2
GREY = "#555555"


@dataclass(frozen=True)
class Look:
    """Colour (Okabe and Ito's), marker, line style, name and hatching of one thing."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]
    name: str
    hatch: str = ""


PARTS = {
    "between_class": Look("#D55E00", "^", "-", "class means"),
    "cross_class": Look("#009E73", "s", "--", "cross-class means", "///"),
    "within_class": Look("#0072B2", "o", "-.", "scatter within classes", "..."),
    "own_class": Look("#CC79A7", "D", ":", "own-class means", "xxx"),
}
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#B8A800",
    "#000000",
    "#8B4513",
    "#7F7F7F",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")

SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "svg.hashsalt": "deepspec",
    "hatch.color": "white",
    "hatch.linewidth": 0.6,
}


def new_figure(
    rows: int, columns: int, height: float, **layout: Any
) -> tuple[Figure, list[list[Axes]]]:
    """A figure one page wide, with rows × columns axes; no window, no global state."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **layout)
    return figure, [list(row) for row in axes]


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """The function, drawing in the house's style whatever the user's settings are."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return drawn


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    content = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(content, format="png")
    return content.getvalue()


def grey_grid(axes: Axes) -> None:
    """Faint lines to read values off."""
    axes.grid(True, color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
