"""What ``result.plot(ax)`` draws, for each kind of result; found by its name when it is asked for.

Bands are pointwise at 95 %. Another kind of result is another ``@draw.register``.
"""

from __future__ import annotations

from functools import singledispatch

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib import pyplot
from matplotlib.axes import Axes
from torch import Tensor

from deepspec.attribution import Attribution, Spectrum, SplitAttribution
from deepspec.class_structure import ExactSpectrum
from deepspec.dynamics import Trajectory
from deepspec.krylov import (
    Eigenpairs,
    JoinedSpectrum,
    LogSpectralDensity,
    SpectralDensity,
)
from deepspec.krylov.baselines import KernelPolynomialDensity
from deepspec.layerwise import CurvatureAgreement
from deepspec.report.plots.curvature import draw_by_depth
from deepspec.report.plots.histograms import linear_histogram, log_histogram
from deepspec.report.plots.outliers import draw_verdicts
from deepspec.report.plots.style import MARKERS, PALETTE, SETTINGS, grey_grid

BLUE, RED = "#0072B2", "#D55E00"
BINS, DECADES, FLOOR = 90, 1e-8, 0.05


def draw(result: object, ax: Axes | None = None) -> Axes:
    """A result on axes; on those of a new figure of pyplot, so that a notebook shows it."""
    with matplotlib.rc_context(SETTINGS):
        axes = pyplot.subplots(layout="constrained")[1] if ax is None else ax
        _draw(result, axes)
    return axes


@singledispatch
def _draw(result: object, axes: Axes) -> None:
    raise TypeError(f"expected a result that can be drawn, got {type(result).__name__}")


@_draw.register
def _pairs(result: Eigenpairs, axes: Axes) -> None:
    """Eigenvalues by number, with the residuals as bars."""
    place = np.arange(1, len(result.values) + 1)
    values, errors = _numbers(result.values), _numbers(result.residuals)
    axes.errorbar(place, values, errors, fmt="o", color=BLUE, capsize=3)
    _by_number(axes)


@_draw.register
def _curvature(result: CurvatureAgreement, axes: Axes) -> None:
    """How far the top C eigenvalues of each approximation are from those of G^l, by layer."""
    draw_by_depth(axes, result.by_depth("log_ratio_top"))
    axes.set_ylabel("mean |log ratio| of the top C eigenvalues")
    axes.set_ylim(bottom=0)
    axes.legend()


@_draw.register
def _exact(result: ExactSpectrum, axes: Axes) -> None:
    """Eigenvalues by number, both axes logarithmic where all are positive."""
    values = _numbers(result.eigenvalues)
    axes.plot(np.arange(1, len(values) + 1), values, ".", color=BLUE)
    axes.set_xscale("log")
    if len(values) and values.min() > 0:
        axes.set_yscale("log")
    axes.set_title(result.operator)
    _by_number(axes)


@_draw.register(SpectralDensity)
@_draw.register(JoinedSpectrum)
@_draw.register(KernelPolynomialDensity)
def _density(result: SpectralDensity | JoinedSpectrum, axes: Axes) -> None:
    """The density with its band on a log axis; exact pairs as sticks."""
    _with_band(axes, result.grid, result.values, result.band(), BLUE, "density, 95 % band")
    if isinstance(result, JoinedSpectrum):
        for value in _numbers(result.pairs.values):
            axes.axvline(value, ymax=0.12, color=RED, lw=1.4)
        axes.plot([], [], color=RED, lw=1.4, label="exact eigenvalues")
    axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel("density")
    axes.set_yscale("log")
    top = float(result.values.max())
    axes.set_ylim(top * DECADES, 3 * top)
    axes.legend()
    grey_grid(axes)


@_draw.register
def _log_density(result: LogSpectralDensity, axes: Axes) -> None:
    """Both signs on one logarithmic axis, each with its band."""
    for side, values, colour in (
        ("positive", result.positive, BLUE),
        ("negative", result.negative, RED),
    ):
        if float(values.max()) > 0:
            band = result.band(side=side)  # type: ignore[arg-type]
            _with_band(axes, result.grid, values, band, colour, f"{side} λ, 95 % band")
    axes.set_xscale("log")
    axes.set_xlabel("|λ| + ε")
    axes.set_ylabel("density of log |λ|" if result.per == "log" else "density of |λ|")
    if result.per == "unit":
        axes.set_yscale("log")
    axes.legend()
    grey_grid(axes)


@_draw.register
def _marks(result: Spectrum, axes: Axes) -> None:
    """Eigenvalues per bin; the largest, which are certain, as sticks."""
    ends = [*_numbers(result.top), *_numbers(result.nodes[result.counts > 0])]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if low >= 0 and high > 0:
        low, high = 1e-6 * high, 3 * high
        centres, counts = log_histogram(result, low, high, BINS)
        axes.set_xscale("log")
    else:
        added = 0.05 * ((high - low) or 1.0)
        centres, counts = linear_histogram(result, low - added, high + added, BINS)
    axes.fill_between(centres, FLOOR, counts, step="mid", color="#56B4E9", lw=0)
    axes.vlines(_numbers(result.top), FLOOR, 1.0, color=RED, lw=1.3, label="the largest, one each")
    axes.set_yscale("log")
    axes.set_ylim(bottom=FLOOR)
    axes.set_title(result.operator)
    axes.set_xlabel("eigenvalue λ")
    axes.set_ylabel("eigenvalues per bin")
    axes.legend()
    grey_grid(axes)


@_draw.register
def _verdicts(result: SplitAttribution, axes: Axes) -> None:
    draw_verdicts(result, axes)


@_draw.register
def _attribution(result: Attribution, axes: Axes) -> None:
    draw_verdicts(result.train, axes)


@_draw.register
def _trajectory(result: Trajectory, axes: Axes) -> None:
    """Every number over the steps."""
    columns = dict(result._table())
    steps = columns.pop("step")
    for place, (name, column) in enumerate(columns.items()):
        look = {"color": PALETTE[place % len(PALETTE)], "marker": MARKERS[place % len(MARKERS)]}
        axes.plot(steps, column, label=name, **look)  # type: ignore[arg-type]
    axes.set_xlabel("step")
    if columns:
        axes.legend()
    grey_grid(axes)


def _with_band(
    axes: Axes,
    grid: Float[Tensor, " k"],
    values: Float[Tensor, " k"],
    band: tuple[Float[Tensor, " k"], Float[Tensor, " k"]],
    colour: str,
    label: str,
) -> None:
    lower, upper = (_numbers(limit) for limit in band)
    axes.fill_between(_numbers(grid), lower, upper, color=colour, alpha=0.25, lw=0)
    axes.plot(_numbers(grid), _numbers(values), color=colour, label=label)


def _by_number(axes: Axes) -> None:
    axes.set_xlabel("number i of the eigenvalue")
    axes.set_ylabel("eigenvalue λ")
    grey_grid(axes)


def _numbers(values: Float[Tensor, " k"]) -> Float[np.ndarray, " k"]:
    found: np.ndarray = values.detach().double().cpu().numpy()
    return found
