"""Predictions, angles, layout, verdicts, traces: each against a closed form or brute force."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

import deepspec
from deepspec.attribution import judge
from deepspec.attribution.alignment import mean_square, principal_cosines, share_inside
from deepspec.attribution.bulk_energy import RelabelledResidual
from deepspec.attribution.cost import estimate
from deepspec.attribution.decomposition import decompose, measure_means, total_trace
from deepspec.attribution.gauss_newton_claims import above
from deepspec.attribution.hessian_claims import HessianSide, excess_removed, hessian_side
from deepspec.attribution.measurement import Settings, measure
from deepspec.attribution.predicted_outliers import coupled_values, predict_outliers
from deepspec.attribution.verdicts import exceeds
from deepspec.class_structure import gradients
from deepspec.class_structure.parts import BetweenClass, OwnClass
from deepspec.class_structure.rows import GradientRows, RowsGram
from deepspec.class_structure.two_way import two_way_layout
from tests import oracles
from tests.cases import CASES
from tests.deepspec.attribution import planted


def trained_like() -> tuple[deepspec.Problem, torch.Tensor]:
    directions, labels = planted.class_means([30, 30, 30, 30], 5.0, level=0.6)
    problem = planted.problem(directions, labels)
    return problem, gradients(problem).gram.to_dense()


def test_predictions_bracket_and_reach_the_truth() -> None:
    problem, S = trained_like()
    measured = measure(gradients(problem), Settings())
    means = measured.means
    within = measured.operator.project_out(means.space)
    edge = float(torch.linalg.eigvalsh(within.to_dense())[-1])
    true = torch.linalg.eigvalsh(S).flip(0)[:4]
    found = predict_outliers(measured.operator, within, means.basis, means.image, true, true, edge)
    assert bool((found.means <= true + 1e-12).all())
    assert bool((found.coupled <= true + 1e-12).all())
    assert bool((found.relative_error("coupled").abs() < 1e-3).all())
    assert bool((found.relative_error("root").abs() < 0.01).all())
    assert bool(
        (found.relative_error("first_order").abs() < found.relative_error("means").abs()).all()
    )
    assert max(found.matvecs_each.values()) <= 20


def test_an_only_mean_has_an_exact_root() -> None:
    """With one u, the scalar root is the determinant's: rank one plus G_within."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(12, 9, generator=generator, dtype=torch.float64)
    factor[0] *= 6
    S = deepspec.MatrixOperator(factor @ factor.T)
    E = torch.eye(12, 1).double()
    within = S.project_out(deepspec.ColumnSpace(E))
    true = torch.linalg.eigvalsh(S.matrix).flip(0)[:1]
    found = predict_outliers(S, within, E, S @ E, true, true, 0.0)
    torch.testing.assert_close(found.root, true)
    torch.testing.assert_close(found.coupled, true, rtol=1e-6, atol=0)


def test_no_scatter_and_hidden_means() -> None:
    S = deepspec.MatrixOperator(torch.diag(torch.tensor([4.0, 3.0, 0.5]).double()))
    E = torch.eye(3)[:, [0, 2]].double()
    within = S.project_out(deepspec.ColumnSpace(E))
    true = torch.tensor([4.0, 3.0]).double()
    found = predict_outliers(S, within, E, S @ E, true, true, 3.0)
    assert found.root.tolist()[0] == pytest.approx(4.0)
    assert coupled_values(S, E, S @ E, torch.zeros(3, 0).double(), 2, 2).tolist() == [4.0, 0.5]
    mixed = torch.diag(torch.tensor([4.0, 0.2, 3.0]).double())
    mixed[1, 2] = mixed[2, 1] = 0.1
    S = deepspec.MatrixOperator(mixed)
    E = torch.eye(3, 2).double()
    within = S.project_out(deepspec.ColumnSpace(E))
    hidden = predict_outliers(S, within, E, S @ E, true, true, 3.0)
    assert math.isnan(float(hidden.root[1]))


def test_cosines_against_scipy() -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(9, 3)), rng.normal(size=(9, 4))
    expected = np.sort(np.cos(scipy.linalg.subspace_angles(X, Y)))[::-1]
    found = principal_cosines(*(torch.from_numpy(M) for M in (X.T @ X, Y.T @ Y, X.T @ Y)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    empty = torch.zeros(0, 0).double()
    assert len(principal_cosines(empty, empty, empty)) == 0
    assert math.isnan(mean_square(torch.zeros(0)))
    assert math.isnan(share_inside(torch.eye(1).double(), torch.ones(1), 0.0))


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_alignment_against_dense_vectors(case: object) -> None:
    model, features, labels = case.build()
    problem = deepspec.Problem(model, (features, labels))
    found = hessian_side(
        measure(gradients(problem), Settings(draws=2, steps=10)), problem, 0.0
    ).alignment
    C = problem.num_classes
    of_g = torch.linalg.eigh(oracles.gauss_newton(model, features)).eigenvectors[:, -C:]
    of_h = torch.linalg.eigh(oracles.hessian(model, features, labels)).eigenvectors[:, -C:]
    parts = oracles.parts_of_g(model, features, labels, "jmlr2020")
    gradient = problem.gradient()
    spans = {}
    for name, words in (("between_class", "class means"), ("cross_class", "cross-class means")):
        left, values, _ = torch.linalg.svd(parts[name])
        spans[words] = left[:, values > 1e-9 * values[0]]
    for words, span in spans.items():
        for name, vectors in (("G", of_g), ("Hess", of_h)):
            expected = torch.linalg.svdvals(vectors.T @ span)
            torch.testing.assert_close(
                found.cosines[f"{name} and {words}"], expected, atol=2e-3, rtol=0
            )
    expected = torch.linalg.svdvals(of_g.T @ of_h)
    torch.testing.assert_close(found.cosines["G and Hess"], expected, atol=2e-3, rtol=0)
    for name, vectors in (("G", of_g), ("Hess", of_h), ("class means", spans["class means"])):
        share = float((vectors.T @ gradient).square().sum() / gradient.square().sum())
        assert found.gradient_share[name] == pytest.approx(share, abs=5e-3)


def test_hessian_knockouts_against_dense() -> None:
    model, features, labels = CASES[0].build()
    problem = deepspec.Problem(model, (features, labels))
    side = hessian_side(measure(gradients(problem), Settings(draws=2, steps=10)), problem, 0.0)
    H, G = oracles.hessian(model, features, labels), oracles.gauss_newton(model, features)
    V = torch.linalg.eigh(G).eigenvectors[:, -3:]
    keep = torch.eye(len(H)).double() - V @ V.T
    expected = torch.linalg.eigvalsh(keep @ H @ keep).flip(0)[:3]
    torch.testing.assert_close(side.projected, expected, atol=1e-4, rtol=1e-3)
    tops = {spectrum.operator: spectrum.top for spectrum in side.spectra}
    for name, matrix in (("Hess", H), ("G", G), ("E", H - G)):
        expected = torch.linalg.eigvalsh(matrix).flip(0)[:3]
        torch.testing.assert_close(tops[name], expected, atol=1e-4, rtol=1e-3)
    other = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    found = RelabelledResidual(problem, other).to_dense()
    expected = oracles.hessian(model, features, other) - G
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)


def test_small_hessians_have_exact_spectra() -> None:
    """One probe's weights told 36 negative eigenvalues where there were 16."""
    model, features, labels = CASES[0].build()
    problem = deepspec.Problem(model, (features, labels))
    side = hessian_side(measure(gradients(problem), Settings(draws=2, steps=5)), problem, 0.0)
    H, G = oracles.hessian(model, features, labels), oracles.gauss_newton(model, features)
    for spectrum, matrix in zip(side.spectra, (H, G, H - G), strict=True):
        assert spectrum.method == "exact"
        nodes = spectrum.nodes.repeat_interleave(spectrum.counts.long())
        found = torch.cat([spectrum.top, nodes])
        expected = torch.linalg.eigvalsh(matrix).flip(0)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6)
        assert spectrum.matvecs == (0 if spectrum.operator == "G" else len(matrix))


@pytest.mark.parametrize("convention", ["jmlr2020", "icml2019"])
@pytest.mark.parametrize("complete", [True, False])
def test_summaries_of_parts(
    convention: str, complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not complete:
        monkeypatch.setattr("deepspec.attribution.decomposition.MOST_CELLS", 3)
    model, features, labels = CASES[0].build()
    problem = deepspec.Problem(model, (features, labels))
    array = gradients(problem, convention)
    gram = RowsGram(GradientRows(problem))
    means = measure_means(array, gram)
    assert means.complete is complete
    G = oracles.gauss_newton(model, features)
    start = torch.eye(gram.size, 3).double()
    found = decompose(gram, means, convention, float(G.trace()), 3, start, 0)
    parts = oracles.parts_of_g(model, features, labels, convention)
    parts["means"] = G - parts["within_class"]
    assert sum(found.part(n).share for n in list(parts)[:4]) == pytest.approx(1.0, abs=1e-6)
    for name, matrix in parts.items():
        expected = torch.linalg.eigvalsh(matrix).flip(0)[:3].clamp_min(0)
        torch.testing.assert_close(found.part(name).top, expected, atol=1e-6, rtol=1e-4)
        assert found.part(name).trace == pytest.approx(float(matrix.trace()), rel=1e-4)
    assert total_trace(array.gram, 0).value == pytest.approx(float(G.trace()))
    assert total_trace(gram, 0).value == pytest.approx(float(G.trace()), rel=1e-3)


def test_eigenvalues_of_parts_are_ordered() -> None:
    """λ_i(G) ≥ λ_i(G1+2) ≥ λ_i(G1) (Papyan 2019, Fig. 7): always, as every part is PSD."""
    problem, S = trained_like()
    for convention in ("jmlr2020", "icml2019"):
        array = gradients(problem, convention)
        means = measure_means(array, array.gram)
        start = torch.eye(len(S), 1).double()
        found = decompose(array.gram, means, convention, float(S.trace()), 4, start, 0)
        whole = torch.linalg.eigvalsh(S).flip(0)[:4]
        assert bool((whole >= found.part("means").top - 1e-9).all())
        assert bool((found.part("means").top >= found.part("between_class").top - 1e-9).all())


def layout_of(vectors: dict[tuple[int, int], list[float]], weights: list[float]) -> object:
    cells = list(vectors)
    w = torch.tensor(weights).double()
    rows = w.sqrt()[:, None] * torch.tensor([vectors[cell] for cell in cells]).double()
    return two_way_layout(rows @ rows.T, w, cells)


def test_an_additive_layout_has_no_interaction() -> None:
    generator = torch.Generator().manual_seed(0)
    row, column = torch.randn(2, 4, 3, generator=generator)
    vectors = {(c, d): (row[c] + column[d]).tolist() for c in range(4) for d in range(4) if c != d}
    weights = (0.1 + torch.rand(12, generator=generator)).tolist()
    found = layout_of(vectors, weights)
    assert found.interaction == pytest.approx(0.0, abs=1e-9)
    parts = found.by_class + found.by_cross_class + found.shared + found.interaction
    assert parts == pytest.approx(1.0)
    only = layout_of({cell: row[cell[0]].tolist() for cell in vectors}, weights)
    assert only.class_alone == pytest.approx(1.0)
    assert only.by_cross_class == pytest.approx(0.0, abs=1e-9)


def test_layouts_with_nothing_in_them() -> None:
    assert math.isnan(layout_of({(0, 0): [1.0]}, [1.0]).interaction)
    same = layout_of({(0, 1): [1.0], (1, 0): [1.0]}, [1.0, 2.0])
    assert same.interaction == 0.0


NONE = {"null": torch.tensor([0.0, 0.01, 0.02])}
FEW = {"two": torch.tensor([0.1, 0.16])}
SAME = {"other": torch.tensor([0.6, 0.7, 0.65, 0.62, 0.68, 0.66])}


@pytest.mark.parametrize(
    ("removed", "nulls", "present", "answer"),
    [
        (0.9, NONE, True, "supported"),
        (0.9, NONE, False, "not decided"),
        (math.nan, NONE, True, "not decided"),
        (0.6, SAME, True, "not decided"),
        (0.9, NONE | SAME, True, "supported"),
        (0.72, NONE | SAME, True, "not decided"),
        (0.4, NONE, True, "not decided"),
        (0.4, SAME, True, "not supported"),
        (0.1, NONE, True, "not supported"),
        (0.58, FEW, True, "not decided"),
        (0.3, FEW, True, "not decided"),
        (0.12, FEW, True, "not supported"),
    ],
)
def test_the_rule(removed: float, nulls: dict, present: bool, answer: str) -> None:
    finding = judge("outliers", removed, math.nan, nulls, present=present)
    assert finding.answer == answer
    as_much = any(removed <= float(draws.max()) for draws in nulls.values())
    assert ("but also with" in finding.reason) == (as_much and present and removed >= 0.5)
    assert ("2 draws of two are too few" in finding.reason) == (nulls is FEW and removed > 0.25)


def test_a_share_known_from_below_only_refutes_nothing() -> None:
    for at_most, answer in ((0.2, "not supported"), (0.3, "not decided")):
        finding = judge("mini-bulk", 0.15, math.nan, NONE, present=True, at_most=at_most)
        assert finding.answer == answer
    assert "between 15% and 30%" in finding.reason


def test_a_verdict_needs_a_null() -> None:
    with pytest.raises(ValueError, match="at least one null"):
        judge("outliers", 0.9, math.nan, {}, present=True)
    assert not exceeds(0.9, torch.zeros(1))


def test_exceeding_by_chance_is_as_rare_as_stated() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = 0.3 + 0.05 * torch.randn(2000, 10, generator=generator)
    wrong = sum(exceeds(float(row[0]), row[1:]) for row in draws)
    assert wrong <= 0.01 * 2000 + 3 * math.sqrt(0.01 * 2000)


def test_excess_over_the_edge() -> None:
    assert math.isnan(excess_removed(torch.tensor([1.0]), torch.tensor([1.0]), 1.0))
    assert excess_removed(torch.tensor([3.0, 2.0]), torch.tensor([3.0, 2.0]), 1.0) == 0.0
    # What was not measured afterwards is not gone.
    assert excess_removed(torch.tensor([5.0, 4.0, 3.0, 2.0]), torch.tensor([5.0, 4.0]), 1.0) == 0
    assert above(torch.tensor([3.0, 1.2]), 1.0) == 1


def by_lanczos(
    monkeypatch: pytest.MonkeyPatch, edge: float
) -> tuple[HessianSide, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A small net's Hessian side as a large one's, with Hess off G's top vectors, and E, dense."""
    monkeypatch.setattr("deepspec.attribution.hessian_claims.FORMED_UP_TO", 0)
    monkeypatch.setattr("deepspec.attribution.hessian_claims.STEPS_BEYOND", 5)
    model, features, labels = CASES[0].build()
    problem = deepspec.Problem(model, (features, labels))
    side = hessian_side(measure(gradients(problem), Settings(draws=2, steps=40)), problem, edge)
    H, G = oracles.hessian(model, features, labels), oracles.gauss_newton(model, features)
    V = torch.linalg.eigh(G).eigenvectors[:, -3:]
    keep = torch.eye(len(H)).double() - V @ V.T
    left, of_e = (torch.linalg.eigvalsh(A).flip(0)[:3] for A in (keep @ H @ keep, H - G))
    return side, torch.linalg.eigvalsh(H).flip(0), left, of_e


def test_pairs_inside_a_bulk_are_taken_as_far_as_affordable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the edge at zero everything reaches beyond it: pairs have to be found."""
    side, whole, left, of_e = by_lanczos(monkeypatch, 0.0)
    found = {spectrum.operator: spectrum.top for spectrum in side.spectra}["E"]
    assert len(found) == 3
    assert bool((found <= of_e + 1e-9).all())
    assert bool((side.projected <= left + 1e-9).all())
    torch.testing.assert_close(side.spectra[0].top, whole[:3], atol=1e-4, rtol=1e-3)


def test_bounds_do_where_nothing_reaches_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the edge far up no pairs of E are looked for, and Hess off G's costs nothing."""
    _, _, left, of_e = by_lanczos(monkeypatch, 0.0)
    side, *_ = by_lanczos(monkeypatch, 10 * float(left.max() + of_e.max()))
    assert bool((side.projected >= left - 1e-9).all())
    e = side.spectra[2]
    assert (e.operator, len(e.top)) == ("E", 0)
    assert (1 - 1e-9) * float(of_e[0]) <= e.end <= 1.001 * float(of_e[0])


def test_what_does_not_fit_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """C = 1,000 and n = 1,000 died of an 8 GB allocation in the middle."""
    monkeypatch.setattr("deepspec.attribution.cost.free_memory", lambda device: 16 * 10**9)
    labels = torch.arange(1000)
    array = deepspec.ClassArray(torch.zeros(1000, 1000, 1), labels)
    with pytest.raises(MemoryError, match=r"1,000 samples of 1,000 classes .* 16 GB are free"):
        deepspec.attribute(array)
    small = deepspec.ClassArray(torch.ones(8, 2, 3), torch.arange(2).repeat(4))
    assert estimate(small, None, Settings()).memory < 10**5


def test_bases_of_class_means_are_as_large_as_they_have_to_be() -> None:
    """By cells, those of 300 classes would go through an array of 300³ or even 300⁴ numbers."""
    classes = 300
    array = deepspec.ClassArray(torch.ones(classes, classes, 1), torch.arange(classes))
    for kind in (BetweenClass, OwnClass):
        part = kind(array.cells)
        assert part.basis.shape == (classes**2, classes)
        assert torch.equal(
            part.basis.square().sum(dim=0).round(decimals=9), torch.ones(classes).double()
        )
        column = torch.zeros(classes**2, 1).double()
        column[: 2 * classes] = torch.linspace(0, 1, 2 * classes).double()[:, None]
        expected = part.on_rows(column)
        found = part.basis @ (part.basis.T @ column)
        assert float((found - expected).abs().max()) < 1e-12
