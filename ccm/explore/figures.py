"""The pictures of a view, in Bokeh; made once and then filled with each view's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    CustomJS,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    Label,
    Range1d,
    Span,
)
from bokeh.plotting import figure
from jaxtyping import Float

from ccm.explore.curves import SNR_GRID, bayes_errors, ratio_curves, ratios_at, snr_curves
from ccm.explore.levels import Row, bulk_curves
from ccm.explore.state import ViewState
from ccm.finite_sample import finite_sample_law
from ccm.sweep import RATIOS

# Okabe-Ito, as in ccm.plots; dashes and places say it again without colour.
COLOURS = {"outliers": "#D55E00", "mini-bulk": "#0072B2", "bulk": "#4D4D4D"}
LANES = {"1": "level 1", "2": "level 2", "3": "level 3", "4": "simulated"}
BINS = 60
TICKS = [m * 10.0**k for k in range(-20, 5) for m in (1, 2, 5)]  # of the logarithmic axes


def _colour(label: str) -> str:
    return COLOURS.get(label.partition(":")[0], "#4D4D4D")


def _figure(height: int, label: str, **options: Any) -> Any:
    """A quiet figure with a name that a screen reader and a test can find."""
    made = figure(
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        name=label,
        output_backend="svg",
        **options,
    )
    made.outline_line_color = None
    made.grid.grid_line_color = "#EEEEEE"
    made.axis.axis_label_text_font_style = "normal"
    if options.get("x_axis_type") == "log":
        made.xaxis.ticker = FixedTicker(ticks=TICKS)
        made.xaxis.formatter = CustomJSTickFormatter(code="return Number(tick.toPrecision(2))")
    return made


class SpectrumFigure:
    """The bulk as a density over its levels; below, every level's eigenvalues in a lane."""

    def __init__(self) -> None:
        self.x_range = Range1d(1e-3, 1.0)
        self.density = _figure(260, "spectrum", x_axis_type="log", x_range=self.x_range)
        self.density.yaxis.axis_label = "share per decade"
        self.density.y_range.start = 0
        self.bulk = ColumnDataSource({"x": [], "y": []})
        self.bars = ColumnDataSource({name: [] for name in ("left", "right", "top", "low", "high")})
        self.lines = ColumnDataSource({name: [] for name in ("x", "top", "colour", "name")})
        self.marks = ColumnDataSource({name: [] for name in ("x", "top", "colour", "name")})
        self.density.quad(
            left="left", right="right", top="top", bottom=0, source=self.bars,
            fill_color="#CCCCCC", line_color="#AAAAAA", legend_label="simulated, one draw",
        )  # fmt: skip
        centre = "mid"
        self.bars.data[centre] = []
        self.density.segment(
            centre, "low", centre, "high", source=self.bars, line_color="#777777",
            legend_label="±2 sd over draws",
        )  # fmt: skip
        self.density.varea("x", 0, "y", source=self.bulk, fill_color="#4D4D4D", fill_alpha=0.15)
        self.density.line(
            "x", "y", source=self.bulk, line_color="black", line_width=1.5,
            legend_label="bulk, this N",
        )  # fmt: skip
        self.density.segment(
            "x", 0, "x", "top", source=self.lines, line_color="colour", line_dash="dashed",
            line_width=1.5, legend_label="level 1",
        )  # fmt: skip
        stems = self.density.segment(
            "x", 0, "x", "top", source=self.marks, line_color="colour", line_width=2.5,
            legend_label="level 2, detached",
        )  # fmt: skip
        self.density.scatter("x", "top", source=self.marks, color="colour", size=9)
        self.density.add_tools(HoverTool(renderers=[stems], tooltips=[("", "@name: @x{0.0000e}")]))
        self.density.legend.location = "top_left"
        self.density.legend.label_text_font_size = "10px"
        self.density.legend.background_fill_alpha = 0.7
        self.density.legend.padding = 4
        self.density.legend.spacing = 0
        self.levels = _figure(
            180, "levels", x_axis_type="log", x_range=self.x_range,
            y_range=list(LANES.values())[::-1],
        )  # fmt: skip
        self.levels.xaxis.axis_label = "eigenvalue of the Fisher information"
        names = ("x", "lane", "colour", "size", "name", "count")
        self.points = ColumnDataSource({name: [] for name in names})
        shown = self.levels.scatter(
            "x", "lane", source=self.points, color="colour", size="size", alpha=0.75
        )
        tips = [("", "@name"), ("eigenvalue", "@x{0.0000e}"), ("multiplicity", "@count")]
        self.levels.add_tools(HoverTool(renderers=[shown], tooltips=tips))

    def show(
        self, state: ViewState, alpha: float, rows: list[Row], draws: list[Float[np.ndarray, " k"]]
    ) -> None:
        """Fill in a view; ``draws`` are simulated spectra, the first of which is drawn."""
        law = finite_sample_law(state.model, alpha, state.per_class)
        curves = bulk_curves(law)
        gap = [math.nan]
        self.bulk.data = {
            "x": np.concatenate([[*c.x, *gap] for c in curves]) if curves else [],
            "y": np.concatenate([[*c.share, *gap] for c in curves]) if curves else [],
        }
        top = max((float(np.nanmax(c.share)) for c in curves), default=1.0)
        values = [v for row in rows for v in (row.eigenvalue, row.low, row.high) if v]
        high = max(values, default=1.0) * 1.6
        low = max(min([v for v in values if v > 1e-4 * high], default=high / 1e3) / 1.6, high / 1e4)
        self.x_range.update(start=low, end=high)
        self._bars(state, draws, low, high)
        top = max([top, *self.bars.data["high"], *self.bars.data["top"]])
        self.density.y_range.end = 1.5 * top
        marked = [row for row in rows if row.eigenvalue and row.group != "null"]
        for source, level, height in ((self.lines, "1", 1.2), (self.marks, "2", 0.7)):
            chosen = [row for row in marked if row.level == level]
            source.data = {
                "x": [row.eigenvalue for row in chosen],
                "top": [height * top] * len(chosen),
                "colour": [_colour(row.group) for row in chosen],
                "name": [row.group for row in chosen],
            }
        self.points.data = {
            "x": [row.eigenvalue for row in marked],
            "lane": [LANES[row.level] for row in marked],
            "colour": [_colour(row.group) for row in marked],
            "size": [6 + 3 * math.log10(row.multiplicity or 1) for row in marked],
            "name": [row.group for row in marked],
            "count": [row.multiplicity for row in marked],
        }

    def _bars(
        self, state: ViewState, draws: list[Float[np.ndarray, " k"]], low: float, high: float
    ) -> None:
        bins = np.geomspace(low, high, BINS + 1)
        counts = np.array([np.histogram(draw, bins)[0] for draw in draws]).reshape(-1, BINS)
        width = math.log10(high / low) / BINS
        shares = counts / (state.dim * (state.num_classes - 1)) / width
        first = shares[0] if len(draws) else np.zeros(0)
        noise = 2 * shares.std(axis=0, ddof=1) if len(draws) > 1 else np.zeros(first.size)
        on = np.flatnonzero(first > 0)
        self.bars.data = {
            "left": bins[:-1][on],
            "right": bins[1:][on],
            "mid": np.sqrt(bins[:-1] * bins[1:])[on],
            "top": first[on],
            "low": np.maximum(first - noise, 0)[on],
            "high": (first + noise)[on],
        }


class SnrFigure:
    """Eigenvalues against SNR; the line at the current t can be dragged, or a place tapped."""

    def __init__(self) -> None:
        self.figure = _figure(
            320, "snr", y_axis_type="log", x_range=Range1d(0, float(SNR_GRID[-1])),
            y_range=Range1d(1e-4, 1),
        )  # fmt: skip
        self.figure.xaxis.axis_label = "signal-to-noise ratio t (drag the line)"
        self.figure.yaxis.axis_label = "eigenvalue"
        self.band = ColumnDataSource({"x": [], "low": [], "high": []})
        self.curves = ColumnDataSource({n: [] for n in ("xs", "ys", "colour", "dash", "name")})
        self.figure.varea(
            "x", "low", "high", source=self.band, fill_color="#DDDDDD", legend_label="bulk, this N"
        )
        self.figure.multi_line(
            "xs", "ys", source=self.curves, line_color="colour", line_dash="dash", line_width=1.6
        )
        for dash, name in (("dashed", "level 1"), ("solid", "level 2"), ("dotted", "level 3")):
            nothing = [math.nan, math.nan]
            self.figure.line(
                nothing, nothing, line_color="black", line_dash=dash, legend_label=name
            )
        self.figure.legend.location = "bottom_left"
        self.figure.legend.label_text_font_size = "10px"
        self.figure.legend.padding = 4
        self.figure.legend.spacing = 0
        self.now = Span(
            location=3, dimension="height", line_color="#009E73", line_width=4, editable=True,
            name="now",
        )  # fmt: skip
        self.figure.add_layout(self.now)
        tap = "now.location = Math.min(Math.max(cb_obj.x, 0), end)"
        end = float(SNR_GRID[-1])
        self.figure.js_on_event("tap", CustomJS(args={"now": self.now, "end": end}, code=tap))
        self.transitions = [
            (
                Span(location=0, dimension="height", line_width=1, line_dash="dashed"),
                Label(
                    x=0, y=0, y_units="screen", y_offset=235 - 15 * k, x_offset=3,
                    text_font_size="11px", background_fill_color="white",
                    background_fill_alpha=0.8,
                ),
            )
            for k in range(4)
        ]  # fmt: skip
        for span, label in self.transitions:
            self.figure.add_layout(span)
            self.figure.add_layout(label)

    def show(self, state: ViewState, alpha: float | None) -> None:
        """Fill in a view; α None is the Bayes classifier's at each SNR."""
        found = snr_curves(state.dim, state.num_classes, state.per_class, alpha)
        self.band.data = {"x": SNR_GRID, "low": found.lower_edge, "high": found.upper_edge}
        named = [
            (label, values, dash)
            for curves, dash in (
                (found.level_1, "dashed"), (found.level_2, "solid"), (found.level_3, "dotted"),
            )
            for label, values in curves.items()
        ]  # fmt: skip
        self.curves.data = {
            "xs": [SNR_GRID] * len(named),
            "ys": [np.where(values > 0, values, np.nan) for _, values, _ in named],
            "colour": [_colour(label) for label, _, _ in named],
            "dash": [dash for _, _, dash in named],
            "name": [label for label, _, _ in named],
        }
        upto = max(6.0, 1.3 * state.snr) >= SNR_GRID
        seen = np.concatenate([values[upto] for _, values, _ in named])
        seen = seen[np.isfinite(seen) & (seen > 0)]
        if seen.size:
            top = float(seen.max())
            low = max(float(seen.min()), 1e-6 * top)
            self.figure.y_range.update(start=low / 2, end=top * 3)
        self.figure.x_range.end = float(SNR_GRID[upto][-1])
        if abs(self.now.location - state.snr) > 0.051:
            self.now.location = state.snr
        shown = list(found.transitions[: len(self.transitions)])
        for k, (span, label) in enumerate(self.transitions):
            span.visible = label.visible = k < len(shown)
            if k < len(shown):
                way = "detached" if shown[k].detached else "absorbed"
                span.update(location=shown[k].snr, line_color=_colour(shown[k].group))
                label.update(
                    x=shown[k].snr,
                    text=f"{shown[k].group} {way} from t = {shown[k].snr:.2f}",
                    text_color=_colour(shown[k].group),
                )


class RatioFigures:
    """Misclassification against the three ratios, the current point on both curves."""

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str], Any] = {}
        self.sources: dict[tuple[str, str], ColumnDataSource] = {}
        self.points: dict[tuple[str, str], ColumnDataSource] = {}
        for upper, lower in RATIOS:
            title = f"{upper} / {lower}".replace("_", "-")
            made = _figure(250, title, x_axis_type="log", y_axis_type="log")
            made.xaxis.axis_label = title
            made.yaxis.axis_label = "misclassification"
            source = ColumnDataSource({"level_1": [], "level_3": [], "error": []})
            point = ColumnDataSource({"x": [], "y": [], "name": []})
            made.line(
                "level_1", "error", source=source, line_color="#4D4D4D", line_dash="dashed",
                legend_label="level 1",
            )  # fmt: skip
            made.line(
                "level_3", "error", source=source, line_color="#0072B2", line_width=1.6,
                legend_label="level 3",
            )  # fmt: skip
            dot = made.scatter("x", "y", source=point, size=11, color="#009E73")
            made.add_tools(
                HoverTool(renderers=[dot], tooltips=[("", "@name"), ("", "@x{0.000}, @y{0.0000e}")])
            )
            made.legend.location = "bottom_left"
            made.legend.label_text_font_size = "10px"
            made.legend.padding = 4
            self.figures[upper, lower], self.sources[upper, lower] = made, source
            self.points[upper, lower] = point

    def show(self, state: ViewState, alpha: float | None) -> Mapping[tuple[str, str], bool]:
        """Fill in a view; which of the ratios exist."""
        errors = bayes_errors(state.num_classes)
        curves = {(c.upper, c.lower): c for c in ratio_curves(state.dim, state.num_classes, alpha)}
        now = ratios_at(state.dim, state.num_classes, state.snr, alpha)
        keep = errors > 1e-6
        for key, source in self.sources.items():
            if key in curves:
                source.data = {
                    "level_1": curves[key].level_1[keep],
                    "level_3": curves[key].level_3[keep],
                    "error": errors[keep],
                }
                self.points[key].data = {
                    "x": list(now[key]),
                    "y": [state.model.bayes_error()] * 2,
                    "name": ["level 1", "level 3"],
                }
        return {key: key in curves for key in self.sources}
