"""Figures say what is so: read back from what was drawn."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from deepspec.attribution import Attribution, Finding, Spectrum, attribute
from deepspec.attribution.spectra import exact_spectrum_of
from deepspec.report.html import write_report
from deepspec.report.plots import figures, hessian_and_its_summands, means_map, scree, verdict_chart
from deepspec.report.plots.histograms import linear_histogram, spread
from tests.deepspec.attribution import planted


@pytest.fixture(scope="module")
def found() -> Attribution:
    directions, labels = planted.class_means([12] * 3, 6.0, size=30)
    return attribute(planted.problem(directions, labels), draws=2)


def legend(figure: Figure) -> list[str]:
    legends = [*figure.legends, *(a.get_legend() for a in figure.axes if a.get_legend())]
    return [text.get_text() for box in legends for text in box.get_texts()]


def with_e(found: Attribution, reach: float) -> Figure:
    """Hess, G and E with eigenvalues of G in [0, 1], and of E up to ± reach."""
    of_e = torch.linspace(-reach, reach, 40).double()
    of_g = torch.linspace(0, 1, 40).double().square()
    spectra: list[Spectrum] = []
    for name, values in (("Hess", of_e + of_g), ("G", of_g), ("E", of_e)):
        spectra.append(exact_spectrum_of(name, values, 3))
    return hessian_and_its_summands(replace(found.train, hessian_spectra=tuple(spectra)))


def test_the_bulk_is_enlarged_where_it_is_narrower(found: Attribution) -> None:
    figure = with_e(found, 0.1)
    whole, enlarged = figure.axes[-2:]
    assert enlarged.get_xlim() == pytest.approx((-0.11, 0.11))
    for panel in (whole, enlarged):
        left, right = panel.get_xlim()
        assert f"(bins of {(right - left) / 120:.2g})" in panel.get_xlabel()
    assert len(with_e(found, 0.8).axes) == 3


def test_no_bin_of_a_psd_matrix_reaches_below_zero(found: Attribution) -> None:
    for panel in with_e(found, 0.8).axes[1:2]:
        left, right = panel.get_xlim()
        edges = np.linspace(left, right, 121)
        assert np.abs(edges).min() < 1e-12
    nodes = torch.tensor([0.0, 0.1, 0.4]).double()
    of_g = Spectrum(
        operator="G",
        method="Lanczos",
        top=nodes[:0],
        nodes=nodes,
        counts=torch.tensor([90.0, 5.0, 5.0]),
        matvecs=3,
    )
    centres, counts = linear_histogram(of_g, -1.0, 1.0, 100)
    assert counts[centres < 0].sum() == 0
    assert counts.sum() == pytest.approx(100)


def test_a_spread_out_count_stays_inside_the_spectrum() -> None:
    nodes, counts = np.array([0.0, 1.0, 4.0]), np.array([8.0, 4.0, 4.0])
    edges = np.linspace(-2.0, 6.0, 9)
    expected = [0, 0, 9, 2, 7 / 3, 8 / 3, 0, 0]
    assert spread(nodes, counts, edges).tolist() == pytest.approx(expected)


def _finding(claim: str, nulls: dict, present: bool, answer: str) -> Finding:
    return Finding(
        claim=claim,
        removed=0.0,
        by_projection=0.0,
        nulls=nulls,
        untrained=math.nan,
        present=present,
        answer=answer,
        reason="",
    )


def test_a_feature_that_is_absent_is_told_from_nothing_removed(found: Attribution) -> None:
    nulls = {"a random subspace": torch.tensor([0.0, 0.1])}
    findings = [
        _finding("outliers", nulls, True, "not supported"),
        _finding("bulk", nulls, False, "not decided"),
    ]
    figure = verdict_chart(replace(found.train, findings=tuple(findings)))
    panel = figure.axes[0]
    texts = [text.get_text() for text in panel.texts]
    assert texts == ["not decided\n(no such feature)", "not supported\n(0 %)"]
    assert len(panel.patches) == 1
    for answer in ("supported", "not supported", "not decided"):
        assert f"by subtraction: {answer}" in legend(figure)


def test_errors_too_small_for_the_axis_are_not_drawn_as_measured(found: Attribution) -> None:
    predicted = found.train.predicted
    exact = replace(found.train, predicted=replace(predicted, coupled=predicted.true))
    far = dict.fromkeys(("means", "first_order", "root", "coupled"), 2 * predicted.true)
    assert "below 0.001 %" in legend(scree(exact))
    off = replace(found.train, predicted=replace(predicted, **far))
    assert "below 0.001 %" not in legend(scree(off))


def test_a_map_needs_points_enough(found: Attribution, tmp_path: Path) -> None:
    assert "train-means-map" not in figures(found)
    page = write_report(found, tmp_path / "run").read_text(encoding="utf-8")
    assert "No map is drawn: t-SNE places fewer than 20 means anywhere" in page
    means = found.train.means
    assert means is not None
    cells = [[c, other] for c in range(5) for other in range(5)]
    vectors = torch.randn(25, 30, generator=torch.Generator().manual_seed(0))
    larger = replace(means, cells=cells, gram=vectors @ vectors.T, weights=torch.ones(25))
    assert {"c = c'", "mean of class c"} <= set(legend(means_map(larger)))
    splits = {"train": replace(found.train, means=larger)}
    assert "train-means-map" in figures(replace(found, splits=splits))


def test_the_parts_add_up_in_their_table(found: Attribution) -> None:
    rows = found.tables()["Parts of G, jmlr2020 (train)"]
    dimensions = {row[0]: row[1] for row in rows}
    assert dimensions["within class"] == str(found.parameters)  # it has more gradients than that
    *parts, whole, means = rows[1:]
    assert [row[0] for row in parts] == [
        "between class",
        "cross class",
        "within class",
        "own class",
    ]
    assert whole[0].startswith("the four: G to")
    assert whole[3] == "100 %"
    assert means[0] == "all but within class"
