"""Knockouts by both definitions against dense pseudo-inverses; shares; nulls from below."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import deepspec
from deepspec.attribution.knockouts import (
    SchurComplement,
    recycled_values,
    removed_share,
    ritz,
    top_values,
)
from deepspec.attribution.measurement import Settings, measure
from deepspec.attribution.nulls import (
    random_subspace,
    shuffled_labels,
    without_random_subspace,
)
from deepspec.attribution.removal import knock_out
from deepspec.attribution.seeding import stream
from deepspec.class_structure import gradients
from deepspec.class_structure.parts import PARTS, BetweenClass
from deepspec.class_structure.rows import GradientRows, RowsGram
from deepspec.krylov import Eigenpairs
from deepspec.operators import MatrixOperator
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train
from tests import oracles
from tests.cases import CASES, Case
from tests.deepspec.attribution import planted

SMALL = CASES[:2]


def top(matrix: Tensor, count: int) -> Tensor:
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)[:count]
    return torch.nn.functional.pad(values, (0, count - len(values)))


def build(case: Case) -> tuple[deepspec.Problem, dict[str, Tensor], Tensor]:
    model, features, labels = case.build()
    problem = deepspec.Problem(model, (features, labels), batch_size=case.batch_size)
    parts = oracles.parts_of_g(model, features, labels, "jmlr2020")
    return problem, parts, oracles.gauss_newton(model, features)


@pytest.mark.parametrize("exact_up_to", [2000, 0], ids=["exact", "Lanczos"])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_every_knockout_against_its_definition(case: Case, exact_up_to: int) -> None:
    problem, parts, G = build(case)
    measured = measure(gradients(problem), Settings(draws=2, exact_up_to=exact_up_to))
    scale = float(torch.linalg.matrix_norm(G, 2))
    torch.testing.assert_close(
        measured.pairs.values.cpu(), top(G, len(measured.pairs.values)), atol=1e-5 * scale, rtol=0
    )
    for name in PARTS[1:]:
        B = parts[name]
        knockout, spectrum = knock_out(measured, name, thorough=True)
        count = len(knockout.subtracted)
        assert count >= measured.count
        tolerance = (1e-10 if exact_up_to else 1e-4) * scale
        expected = top(G - B, count)
        torch.testing.assert_close(knockout.subtracted, expected, atol=tolerance, rtol=0)
        keep = torch.eye(problem.size).double() - B @ torch.linalg.pinv(B, rtol=1e-11)
        assert len(knockout.projected) >= min(count, 2 * measured.count)
        expected = top(keep @ G @ keep, len(knockout.projected))
        if exact_up_to or name != "within_class":
            loose = tolerance if exact_up_to == 0 else 1e-8 * scale
            torch.testing.assert_close(knockout.projected, expected, atol=loose, rtol=0)
        else:
            assert bool(knockout.projected.isnan().all())
        assert spectrum is not None
        assert abs(spectrum.trace - float((G - B).trace())) < 0.6 * scale


def test_a_schur_complement_is_a_projection_knockout() -> None:
    problem, _, G = build(CASES[0])
    rows = GradientRows(problem)
    gram = RowsGram(rows)
    basis = torch.linalg.qr(torch.randn(gram.size, 3, dtype=torch.float64))[0]
    vectors = rows.rmatmul(basis)
    B = vectors @ vectors.T
    keep = torch.eye(problem.size).double() - B @ torch.linalg.pinv(B, rtol=1e-11)
    schur = SchurComplement(gram, basis, gram @ basis)
    schur.prepare(1)
    found = top(schur.to_dense(), 8)
    torch.testing.assert_close(found, top(keep @ G @ keep, 8), atol=1e-9, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 3))
def test_the_removed_share_stays_between_0_and_1(seed: int, rank: int, first: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(12, 10, generator=generator, dtype=torch.float64)
    A = factor @ factor.T
    part = torch.randn(10, rank, generator=generator, dtype=torch.float64)
    P = part @ torch.linalg.pinv(part)
    B = factor @ P @ factor.T
    before, after = top(A, 12), top(A - B, 12)
    at_most = before[first : first + 3] - before[first + rank : first + rank + 3]
    raw = float((before[first : first + 3] - after[first : first + 3]).sum() / at_most.sum())
    assert -1e-9 <= raw <= 1 + 1e-9
    share = removed_share(before, after, first, 3, rank)
    assert abs(share - raw) < 1e-9


def test_nothing_to_remove_has_no_share() -> None:
    flat = torch.ones(4)
    assert removed_share(flat, flat, 0, 1, 1) != removed_share(flat, flat, 0, 1, 1)
    assert removed_share(flat, flat, 0, 0, 1) != removed_share(flat, flat, 0, 0, 1)


def test_recycled_values_are_lower_bounds_close_to_the_truth() -> None:
    directions, labels = planted.class_means([20, 20, 20], 6.0)
    problem = planted.problem(directions, labels)
    array = gradients(problem)
    S = array.gram
    dense = S.to_dense()
    values, vectors = torch.linalg.eigh(dense)
    pairs = Eigenpairs.exact(values.flip(0)[:20], vectors.flip(1)[:, :20].contiguous())
    for draw in range(3):
        P = BetweenClass(array.cells.relabelled(shuffled_labels(problem.labels, 0, draw)))
        found = recycled_values(S, P, pairs, 6)
        keep = torch.eye(S.size).double() - P.to_dense()
        truth = top(keep @ dense @ keep, 6)
        assert bool((found <= truth + 1e-9).all())
        assert bool((found >= 0.98 * truth).all())


def test_a_random_subspace_against_its_definition() -> None:
    problem, _, G = build(CASES[0])
    rows = GradientRows(problem)
    S = RowsGram(rows).to_dense()
    values, vectors = torch.linalg.eigh(S)
    pairs = Eigenpairs.exact(values.flip(0), vectors.flip(1).contiguous())
    found = without_random_subspace(rows, pairs, 3, 5, seed=7, draw=2)
    R = random_subspace(problem.size, 3, S, stream(7, "random subspace", 2))
    keep = torch.eye(problem.size).double() - R @ R.T
    torch.testing.assert_close(found, top(keep @ G @ keep, 5), atol=1e-7, rtol=1e-6)


def test_a_random_subspace_too_large_to_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepspec.attribution.nulls.MOST_ENTRIES", 10)
    problem, _, _ = build(CASES[0])
    pairs = Eigenpairs.exact(torch.tensor([4.0, 2.0]), torch.eye(27, 2).double())
    found = without_random_subspace(GradientRows(problem), pairs, 9, 3, seed=0, draw=0)
    share = 1 - 9 / problem.size
    torch.testing.assert_close(found, torch.tensor([4 * share, 2 * share, 0.0]).double())


def test_short_lists_are_filled_up() -> None:
    A = MatrixOperator(torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64)))
    assert top_values(A, 4).tolist() == pytest.approx([2.0, 1.0, 0.0, 0.0])
    assert top_values(A, 0).tolist() == []
    assert top_values(A, 1, torch.zeros(2, 1).double()).tolist() == [2.0]
    one = torch.eye(2, 1).double()
    assert ritz(one, A.matrix @ one, 2).tolist() == [2.0, 0.0]


def test_exact_and_estimated_spectra_tell_the_same() -> None:
    """Outliers that stay are counted in both; the mini-bulk's share is a lower bound at worst."""
    data = digits(per_class=10)
    model = mlp(64, (32,))
    train(model, *data.train, epochs=3)
    problem = deepspec.Problem(model, data.train, dtype=torch.float64)
    exact = deepspec.attribute(problem, draws=2, steps=20).train
    estimated = deepspec.attribute(problem, draws=2, steps=20, exact_up_to=0).train
    assert exact.outliers == estimated.outliers > problem.num_classes
    for part in ("between_class", "own_class"):
        assert exact.outliers_without(part) == estimated.outliers_without(part)
    claims = ("top outlier", "outliers", "outliers of Hess")
    for claim in claims:
        found, truth = estimated.finding(claim).removed, exact.finding(claim).removed
        assert found == pytest.approx(truth, abs=0.01), claim
    # Where S is not formed the mini-bulk is looked for right of the bulk, at known places only.
    assert exact.mini_bulk is not None
    assert estimated.mini_bulk is None
