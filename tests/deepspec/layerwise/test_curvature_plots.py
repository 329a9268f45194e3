"""Figures of Kronecker approximations show the numbers of their results."""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from deepspec.layerwise import Agreement, BlockAgreement, CurvatureAgreement
from deepspec.report.plots import (
    block_diagonals_over_training,
    curvature_by_depth,
    curvature_spectra,
)
from deepspec.report.plots.style import png


def block(name: str, seed: float, *kinds: str) -> BlockAgreement:
    eigenvalues = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25], dtype=torch.float64)
    by_kind = {
        kind: Agreement(
            eigenvalues=eigenvalues * (0.5 + place) if place else eigenvalues.clone(),
            log_ratio_top=seed + place,
            log_ratio_next=0.1,
            relative_error=seed / 2,
            overlap=0.3 + 0.1 * place,
            trace_ratio=1.0,
        )
        for place, kind in enumerate(kinds)
    }
    return BlockAgreement(
        name=name, num_classes=2, parameters=9, eigenvalues=eigenvalues, by_approximation=by_kind
    )


KINDS = ("kfac", "cfac", "ekfac", "kfoc")


def found(seed: float = 0.2, layers: int = 3) -> CurvatureAgreement:
    return CurvatureAgreement(
        layers=tuple(block(f"layer {i}", seed + i, *KINDS) for i in range(layers)),
        whole=block("G", seed, "block_diagonal", *KINDS),
    )


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_by_depth() -> None:
    figure = curvature_by_depth(found())
    lines = figure.axes[0].lines
    assert names(figure) == ["KFAC", "CFAC", "EKFAC", "KFOC"]
    assert list(lines[1].get_ydata()) == pytest.approx([1.2, 2.2, 3.2])
    assert list(lines[1].get_xdata()) == [1, 2, 3]
    assert len(png(figure)) > 1000


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_spectra(layers: int) -> None:
    figure = curvature_spectra(found(layers=layers))
    drawn = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in drawn][-1] == "G"
    assert len(drawn) == layers + 1
    assert names(figure)[:2] == ["exact", "exact blocks"]
    assert list(drawn[0].lines[0].get_ydata()) == [8.0, 4.0, 2.0, 1.0, 0.5, 0.25]
    assert len(png(figure)) > 1000


def test_over_training() -> None:
    moments = {0: found(0.2), 30: found(0.6)}
    figure = block_diagonals_over_training(moments, {0: [0.5, 0.6], 30: [0.7]})
    errors, top, _ = figure.axes
    assert list(errors.lines[0].get_ydata()) == pytest.approx([0.1, 0.3])
    assert list(errors.lines[-1].get_ydata()) == [0.5, 0.6, 0.7]
    assert list(top.lines[1].get_ydata()) == pytest.approx([1.5, 1.5])
    assert names(figure)[-1] == "random blocks"
    assert "random blocks" not in names(block_diagonals_over_training(moments, {}))
    assert len(png(figure)) > 1000
