"""The two pictures of the page, in Bokeh: the spectrum of G by cause, and what knockouts leave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, Range1d, Span
from bokeh.plotting import figure

from deepspec.attribution import Spectrum, SplitAttribution
from deepspec.report.plots.histograms import log_histogram
from deepspec.report.plots.spectra import FLOOR
from deepspec.report.plots.style import PARTS

BINS = 90
DECADES = 1e-5  # of the largest eigenvalue: where the axis begins
HEIGHTS = dict(zip(PARTS, (0.4, 0.8, 1.6, 3.2), strict=True))  # of the triangles of each knockout


class SpectrumFigures:
    """Above G, coloured by cause; below what each chosen knockout leaves, beside G's outline."""

    def __init__(self) -> None:
        self.x_range, self.y_range = Range1d(1e-6, 1.0), Range1d(FLOOR, 100)
        self.by_cause = self._figure("spectrum of G, by cause")
        self.by_cause.yaxis.axis_label = "eigenvalues per bin"
        self.bars = {}
        for part, look in PARTS.items():
            self.bars[part] = ColumnDataSource(
                {name: [] for name in ("left", "right", "low", "high", "share")}
            )
            drawn = self.by_cause.quad(
                left="left", right="right", bottom="low", top="high", source=self.bars[part],
                fill_color=look.colour, fill_alpha=0.75, line_color=None,
            )  # fmt: skip
            tip = [("eigenvalues here", "@left{0.0e} … @right{0.0e}"), (look.name, "@share{0%}")]
            self.by_cause.add_tools(HoverTool(renderers=[drawn], tooltips=tip))
        self.top = ColumnDataSource(
            {name: [] for name in ("value", "rank", "colour", "height", "cause", *PARTS)}
        )
        self.by_cause.segment(
            "value", FLOOR, "value", "height", source=self.top, line_color="colour"
        )
        points = self.by_cause.scatter(
            "value", "height", source=self.top, color="colour", size=9, line_color="white"
        )
        tips = [("eigenvalue", "@value{0.0000e}, number @rank"), ("mostly", "@cause")]
        tips += [(look.name, f"@{part}{{0.0%}}") for part, look in PARTS.items()]
        self.by_cause.add_tools(HoverTool(renderers=[points], tooltips=tips))
        self.left = self._figure("what is left")
        self.left.yaxis.axis_label = "eigenvalues per bin"
        self.left.xaxis.axis_label = "eigenvalue"
        self.whole = ColumnDataSource({"x": [], "y": []})
        self.left.step("x", "y", source=self.whole, mode="center", line_color="black")
        self.remains, self.sticks = {}, {}
        for part, look in PARTS.items():
            self.remains[part] = ColumnDataSource({"x": [], "y": []})
            self.sticks[part] = ColumnDataSource({"value": [], "rank": [], "height": []})
            label = f"without {look.name}"
            self.left.step(
                "x", "y", source=self.remains[part], mode="center", line_width=2,
                line_color=look.colour,
            )  # fmt: skip
            stick = self.left.scatter(
                "value", "height", source=self.sticks[part], marker="inverted_triangle",
                size=9, color=look.colour,
            )  # fmt: skip
            tips = [(label, "@value{0.0000e}, number @rank")]
            self.left.add_tools(HoverTool(renderers=[stick], tooltips=tips))
        self.edges = []
        for picture in (self.by_cause, self.left):
            edge = Span(location=1.0, dimension="height", line_dash="dashed", line_color="#555555")
            picture.add_layout(edge)
            self.edges.append(edge)

    def _figure(self, name: str) -> Any:
        made = figure(
            height=300, sizing_mode="stretch_width", toolbar_location=None, tools="",
            name=name, x_axis_type="log", y_axis_type="log", output_backend="svg",
            x_range=self.x_range, y_range=self.y_range,
        )  # fmt: skip
        made.outline_line_color = None
        made.grid.grid_line_color = "#EEEEEE"
        made.axis.axis_label_text_font_style = "normal"
        return made

    def show(self, split: SplitAttribution, without: Iterable[str]) -> None:
        """Fill in one split of one run, with the knockouts of some parts."""
        whole, chosen = split.whole, set(without)
        low, high = DECADES * float(whole.top[0]), 3 * float(whole.top[0])
        centres, total = log_histogram(whole, low, high, BINS)
        self.x_range.start, self.x_range.end = low, high
        self.y_range.end = max(100.0, 3 * float(total.max(initial=0)))
        for edge in self.edges:
            edge.location = split.edge
        self._fill_bars(whole, low, high)
        causes = {part: whole.top_causes[part].numpy() for part in PARTS}
        main = np.stack(list(causes.values())).argmax(axis=0)
        looks = list(PARTS.values())
        self.top.data = {
            "value": whole.top.numpy(),
            "rank": 1 + np.arange(len(whole.top)),
            "colour": [looks[k].colour for k in main],
            "cause": [looks[k].name for k in main],
            # Neighbours at different heights: their marks are wider than the gaps between them.
            "height": [(2.5, 5.0, 10.0)[place % 3] for place in range(len(whole.top))],
            **causes,
        }
        self.whole.data = {"x": centres, "y": np.maximum(total, FLOOR)}
        for part in PARTS:
            if part not in chosen:
                self.remains[part].data = {"x": [], "y": []}
                self.sticks[part].data = {"value": [], "rank": [], "height": []}
                continue
            left = split.left_without(part)
            x, y = log_histogram(left, low, high, BINS)
            self.remains[part].data = {"x": x, "y": np.maximum(y, FLOOR)}
            values = left.top.numpy()
            self.sticks[part].data = {
                "value": values,
                "rank": 1 + np.arange(len(values)),
                "height": np.full(len(values), HEIGHTS[part]),
            }

    def _fill_bars(self, whole: Spectrum, low: float, high: float) -> None:
        """Bins shared out among causes in proportion, on an axis of logarithms."""
        centres, total = log_histogram(whole, low, high, BINS)
        half = np.sqrt(centres[1] / centres[0])
        height = np.maximum(np.log(np.maximum(total, 1e-12) / FLOOR), 0.0)
        bottom = np.full_like(total, FLOOR)
        for part in PARTS:
            _, mine = log_histogram(whole, low, high, BINS, part)
            share = np.divide(mine, total, out=np.zeros_like(mine), where=total > 0)
            top = bottom * np.exp(height * share)
            shown = total > 0
            self.bars[part].data = {
                "left": (centres / half)[shown],
                "right": (centres * half)[shown],
                "low": bottom[shown],
                "high": top[shown],
                "share": share[shown],
            }
            bottom = top
