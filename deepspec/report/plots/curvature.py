"""Kronecker approximations beside exact curvature: by depth, by spectrum, over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepspec.layerwise import BlockAgreement, CurvatureAgreement
from deepspec.report.plots.style import GREY, Look, grey_grid, new_figure, styled

LOOKS = {
    "block_diagonal": Look("#000000", "o", "-", "exact blocks"),
    "kfac": Look("#D55E00", "^", "--", "KFAC"),
    "cfac": Look("#009E73", "s", "-.", "CFAC"),
    "ekfac": Look("#0072B2", "D", ":", "EKFAC"),
    "kfoc": Look("#CC79A7", "v", (0, (3, 1, 1, 1)), "KFOC"),
}
COLUMNS = 4


@styled
def curvature_by_depth(found: CurvatureAgreement) -> Figure:
    """How far each approximation is from G^l, layer by layer: eigenvalues, norm, eigenvectors."""
    figure, axes = new_figure(1, 3, 3.2)
    measures = (
        ("log_ratio_top", "mean |log ratio|", "top C eigenvalues"),
        ("relative_error", r"$\|K - G^l\| / \|G^l\|$", "Frobenius error"),
        ("overlap", r"$\|U^T V\|^2 / C$", "overlap of top-C spaces"),
    )
    for panel, (measure, unit, title) in zip(axes[0], measures, strict=True):
        values = found.by_depth(measure)
        draw_by_depth(panel, values)
        panel.set(ylabel=unit, title=title)
        panel.set_ylim(0, 1.03 if measure == "overlap" else None)
    _legend(figure, axes[0][0])
    return figure


def draw_by_depth(panel: Axes, values: Mapping[str, Sequence[float]]) -> None:
    """One line an approximation, one place a layer."""
    layers = len(next(iter(values.values())))
    _lines(panel, values, np.arange(1, layers + 1))
    panel.set_xlabel("layer, from the input")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def curvature_spectra(found: CurvatureAgreement) -> Figure:
    """The largest eigenvalues of G^l beside those of its approximations (Papyan 2020, Fig. 12).

    A panel a layer and one for the whole; the line is after the C-th eigenvalue.
    """
    return spectra_of_blocks((*found.layers, found.whole))


@styled
def spectra_of_blocks(blocks: Sequence[BlockAgreement]) -> Figure:
    """The same of any blocks, a panel each."""
    rows = -(-len(blocks) // COLUMNS)
    figure, axes = new_figure(rows, min(COLUMNS, len(blocks)), 2.1 * rows + 0.6)
    panels = [panel for row in axes for panel in row]
    for panel, block in zip(panels, blocks, strict=False):
        _spectrum(panel, block)
    for panel in panels[len(blocks) :]:
        panel.set_axis_off()
    figure.supxlabel("number i of the eigenvalue", fontsize=10)
    figure.supylabel("eigenvalue λ", fontsize=10)
    _legend(figure, panels[len(blocks) - 1])
    return figure


@styled
def block_diagonals_over_training(
    moments: Mapping[int, CurvatureAgreement], random_blocks: Mapping[int, Sequence[float]]
) -> Figure:
    """How wrong block-diagonals of G are after some epochs, and random blocks for comparison.

    Parameters
    ----------
    moments
        What was found, by epoch.
    random_blocks
        Relative errors of block-diagonals over random partitions of θ, by epoch; may be empty.
    """
    figure, axes = new_figure(1, 3, 3.2)
    epochs = np.array(sorted(moments))
    kinds = moments[int(epochs[0])].whole.by_approximation
    wholes = [moments[int(epoch)].whole for epoch in epochs]
    panels = (
        ("Frobenius error", r"$\|K - G\| / \|G\|$", lambda w, kind: w[kind].relative_error),
        ("largest eigenvalue", r"$\lambda_1(K) / \lambda_1(G)$", BlockAgreement.top_ratio),
        ("overlap of top-C spaces", r"$\|U^T V\|^2 / C$", lambda w, kind: w[kind].overlap),
    )
    for panel, (title, unit, measure) in zip(axes[0], panels, strict=True):
        _lines(panel, {kind: [measure(w, kind) for w in wholes] for kind in kinds}, epochs)
        panel.set_xscale("symlog", linthresh=1)
        panel.set_xticks(epochs, [str(epoch) for epoch in epochs])
        panel.set(ylabel=unit, title=title, xlabel="epochs", ylim=(0, 1.1))
        panel.minorticks_off()
    drawn = [(epoch, error) for epoch, several in random_blocks.items() for error in several]
    if drawn:
        axes[0][0].plot(*zip(*drawn, strict=True), "_", color=GREY, ms=9, label="random blocks")
    _legend(figure, axes[0][0])
    return figure


def _lines(panel: Axes, values: Mapping[str, Sequence[float]], places: np.ndarray) -> None:
    for kind, several in values.items():
        look = LOOKS[kind]
        panel.plot(
            places, several, look.marker, ls=look.line, color=look.colour, label=look.name, ms=4.5
        )
    grey_grid(panel)


def _spectrum(panel: Axes, block: BlockAgreement) -> None:
    count = len(block.eigenvalues)
    panel.plot(np.arange(1, count + 1), block.eigenvalues, color=GREY, lw=3.5, label="exact")
    for kind, found in block.by_approximation.items():
        look, values = LOOKS[kind], found.eigenvalues
        shown = values.numpy()[values.numpy() > 0]
        place = np.arange(1, len(shown) + 1)
        panel.plot(place, shown, ls=look.line, color=look.colour, lw=1.2, label=look.name)
    panel.axvline(block.num_classes + 0.5, color=GREY, lw=0.7, ls=(0, (4, 3)))
    panel.set(xscale="log", yscale="log", title=block.name)
    smallest = float(block.eigenvalues[-1])
    panel.set_ylim(smallest / 3, 2 * float(block.eigenvalues[0]))
    grey_grid(panel)


def _legend(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8.5)
