"""The numbers of a view are the library's, to the last digit where nothing is averaged."""

import csv
import io

import numpy as np
import pytest

import ccm
from ccm.explore.curves import (
    SNR_GRID,
    bayes_errors,
    rank_means,
    ratio_curves,
    ratios_at,
    snr_curves,
)
from ccm.explore.levels import Row, bulk_curves, level_rows, to_csv
from ccm.explore.state import ViewState

STATES = [
    (ViewState(), 0.05),
    (ViewState(dim=40, num_classes=2, per_class=10, snr=1.0), 0.4),
    (ViewState(dim=3, num_classes=3, snr=0.0), 0.5),
    (ViewState(dim=60, num_classes=4, per_class=15, snr=5.0), 0.2),
    (ViewState(dim=60, num_classes=4, per_class=15), 0.0),
    (ViewState(dim=160, num_classes=5, per_class=2, snr=8.0), 0.1),
]


def of_level(rows: list[Row], level: str) -> list[Row]:
    return [row for row in rows if row.level == level]


@pytest.mark.parametrize(("state", "alpha"), STATES)
def test_levels(state: ViewState, alpha: float) -> None:
    rows = level_rows(state, alpha)
    for level, spectrum in (
        ("1", ccm.symmetric_spectrum(state.model, alpha)),
        ("3", ccm.bayes_spectrum(state.model)),
    ):
        found = [(row.group, row.eigenvalue, row.multiplicity) for row in of_level(rows, level)]
        assert found == [(lv.label, lv.value, lv.multiplicity) for lv in spectrum.levels]
    law = ccm.finite_sample_law(state.model, alpha, state.per_class)
    for row in of_level(rows, "2"):
        if row.group in ("outliers", "mini-bulk"):
            assert row.eigenvalue == law.location(row.group)
    counts = [row.multiplicity for row in of_level(rows, "2")]
    if None not in counts:  # a split bulk has no multiplicities
        assert sum(count for count in counts if count is not None) == state.model.size


def test_level_2_counts_what_a_simulation_has() -> None:
    state, alpha = STATES[0]
    X, y = state.model.sample(state.per_class, 0)
    probabilities = ccm.symmetric_probabilities(state.num_classes, alpha)[y]
    values = np.linalg.eigvalsh(ccm.empirical_fim(X, probabilities))
    rows = {row.group: row for row in level_rows(state, alpha) if row.level == "2"}
    bulk, outliers = rows["bulk"], rows["outliers"]
    assert bulk.low is not None
    assert bulk.high is not None
    assert outliers.eigenvalue is not None
    middle = (bulk.high + outliers.eigenvalue) / 2
    beyond = int((values > middle).sum())
    inside = int(((values > bulk.low / 2) & (values <= middle)).sum())
    held = state.model.size - state.dim - state.num_classes
    assert (beyond, inside) == (outliers.multiplicity, held)


@pytest.mark.parametrize(("state", "alpha"), STATES)
def test_rank_means_without_the_eigenvalues(state: ViewState, alpha: float) -> None:
    C = state.num_classes
    for spectrum, outliers in (
        (ccm.symmetric_spectrum(state.model, alpha), C),
        (ccm.bayes_spectrum(state.model), C - 1),
    ):
        found = rank_means(spectrum, C, outliers)
        expected = ccm.spectrum_group_means(spectrum, state.model, outliers)
        np.testing.assert_allclose(
            [found.outliers, found.mini_bulk, found.bulk],
            [expected.outliers, expected.mini_bulk, expected.bulk],
            rtol=1e-12,
        )


@pytest.mark.parametrize(("state", "alpha"), STATES)
def test_areas_on_the_log_axis_are_shares(state: ViewState, alpha: float) -> None:
    law = ccm.finite_sample_law(state.model, alpha, state.per_class)
    curves = bulk_curves(law)
    assert len(curves) == len(law.edges)
    area = sum(float(np.trapezoid(c.share, np.log10(c.x))) for c in curves)
    first = law.cdf(curves[0].x[0]) if curves else 1.0
    assert area == pytest.approx(1 - first, abs=2e-3)


def test_csv_holds_every_number_exactly() -> None:
    state = ViewState(per_class=37)
    rows = level_rows(state, 0.05)
    read = list(csv.DictReader(io.StringIO(to_csv(rows, state, 0.05))))
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        assert (line["level"], line["group"], line["per_class"]) == (row.level, row.group, "37")
        assert line["eigenvalue"] == ("" if row.eigenvalue is None else repr(row.eigenvalue))


@pytest.mark.parametrize("alpha", [None, 0.1])
def test_curves_are_the_library_along_the_snr(alpha: float | None) -> None:
    curves = snr_curves(60, 4, 15, alpha)
    for k in (0, 20, 60):
        model = ccm.CanonicalClassificationModel(60, 4, float(SNR_GRID[k]))
        here = model.bayes_alpha() if alpha is None else alpha
        law = ccm.finite_sample_law(model, here, 15)
        for level in ccm.symmetric_spectrum(model, here).levels[:3]:
            assert curves.level_1[level.label][k] == level.value
        for level in ccm.bayes_spectrum(model).levels:
            if level.label != "null":
                assert curves.level_3[level.label][k] == level.value
        location = law.location("outliers")
        found = curves.level_2["outliers"][k]
        assert found == location or (location is None and np.isnan(found))
        assert curves.upper_edge[k] == law.edges[-1, 1]
        assert bayes_errors(4)[k] == model.bayes_error()


def test_transitions_are_where_the_library_has_them() -> None:
    law = ccm.finite_sample_law(ccm.CanonicalClassificationModel(60, 4, 1.0), 0.1, 15)
    fixed = {t.group: t.snr for t in snr_curves(60, 4, 15, 0.1).transitions if t.detached}
    assert fixed["outliers"] == law.critical_snr("outliers")
    moving = [t for t in snr_curves(60, 4, 15, None).transitions if t.group == "outliers"]
    assert moving
    assert moving[0].detached
    for side, detached in ((-1e-3, False), (1e-3, True)):
        model = ccm.CanonicalClassificationModel(60, 4, moving[0].snr + side)
        here = ccm.finite_sample_law(model, model.bayes_alpha(), 15)
        assert (model.snr > here.critical_snr("outliers")) == detached


def test_a_mini_bulk_leaves_through_a_gap_and_comes_back() -> None:
    found = [t for t in snr_curves(800, 5, 8, 0.1).transitions if t.group == "mini-bulk"]
    assert [(round(t.snr, 1), t.detached) for t in found] == [(4.4, True)]


@pytest.mark.parametrize(
    ("dim", "classes", "count"), [(50, 10, 3), (50, 2, 1), (10, 10, 1), (2, 2, 0)]
)
def test_only_ratios_that_exist(dim: int, classes: int, count: int) -> None:
    assert len(ratio_curves(dim, classes, None)) == count


def test_ratios_are_those_of_a_sweep() -> None:
    table = ccm.snr_sweep(20, 4, [2.0], per_class=20, replicates=2)
    curves = ratio_curves(20, 4, None)
    for curve in curves:
        name = f"{curve.upper}_over_{curve.lower}"
        assert curve.level_1[10] == pytest.approx(table.column(f"level1_{name}")[0], rel=1e-12)
        assert curve.level_3[10] == pytest.approx(table.column(f"level3_{name}")[0], rel=1e-12)


def test_nothing_has_no_ratio() -> None:
    assert np.isnan(ratios_at(20, 4, 2.0, 0.0)[("outliers", "bulk")][0])
