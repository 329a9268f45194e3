"""The parts as projectors, against dense brute force by definition."""

import pytest
import torch
from torch import Tensor

import deepspec
from deepspec.attribution.nulls import shuffled_labels
from deepspec.class_structure.array import gradients
from deepspec.class_structure.downdate import means_beyond_within
from deepspec.class_structure.parts import (
    BetweenClass,
    CellMeans,
    GlobalMean,
    WithinClass,
    part,
)
from deepspec.class_structure.rows import GradientRows, RowsGram
from tests import oracles
from tests.cases import CASES, Case

CONVENTIONS = ["jmlr2020", "icml2019"]


def rows(case: Case) -> tuple[deepspec.Problem, GradientRows, Tensor]:
    """D, row by row from its definition: √(p_{i,c'}/n) J_iᵀ(p_i − e_c')."""
    model, features, labels = case.build()
    problem = deepspec.Problem(model, (features, labels), batch_size=case.batch_size)
    J = oracles.jacobian(model, features)
    prob = torch.softmax(model(features), dim=1).detach()
    found = [
        (prob[i, c] / len(J)).sqrt() * (J[i].T @ (prob[i] - torch.eye(len(prob[i])).double()[c]))
        for i in range(len(J))
        for c in range(prob.shape[1])
    ]
    return problem, GradientRows(problem), torch.stack(found)


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= 1e-10 * max(float(other.norm()), 1e-30))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gram_is_the_gram_of_the_definition(case: Case) -> None:
    problem, found, D = rows(case)
    assert close(RowsGram(found).to_dense(), D @ D.T)
    assert close(found.gram(), D @ D.T)
    assert close(found.dense(), D)
    assert close(found.matmul(torch.eye(problem.size).double()), D)
    assert close(found.rmatmul(torch.eye(len(D)).double()), D.T)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_part_against_loops(case: Case, convention: str) -> None:
    model, features, labels = case.build()
    problem, _, D = rows(case)
    cells = gradients(problem, convention).cells
    expected = oracles.parts_of_g(model, features, labels, convention)
    found = {name: part(cells, name).to_dense() for name in expected}
    for name, P in found.items():
        assert close(D.T @ P @ D, expected[name]), name
        assert close(P @ P, P), name
        assert close(P, P.T), name
    assert close(sum(found.values()), torch.eye(len(D)).double())
    for name in ("between_class", "cross_class", "own_class", "means", "global_mean"):
        chosen = part(cells, name)
        basis = chosen.basis
        assert basis.shape[1] == chosen.rank
        assert close(basis @ basis.T, chosen.to_dense())
        assert close(basis.T @ basis, torch.eye(chosen.rank).double())


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_global_mean_by_definition(case: Case) -> None:
    problem, _, D = rows(case)
    cells = gradients(problem).cells
    prob, labels = problem.probabilities, problem.labels
    root = (prob / len(prob)).sqrt().reshape(-1)
    vectors = (D / root[:, None]).reshape(len(prob), prob.shape[1], -1)
    total = torch.zeros(problem.size).double()
    for i in range(len(prob)):
        for c in range(prob.shape[1]):
            if c != labels[i]:
                total += prob[i, c] / len(prob) * vectors[i, c]
    weight = float(cells.row.sum())
    expected = torch.outer(total, total) / weight
    assert close(D.T @ GlobalMean(cells).to_dense() @ D, expected)


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_class_means_point_against_own_class_means(case: Case) -> None:
    """Σ_c' p_{i,c'} g_{i,c'} = 0, so w_c g_c = −w_{c,c} g_{c,c}: the two spans are one."""
    problem, found, _ = rows(case)
    cells = gradients(problem).cells
    between, own = part(cells, "between_class"), part(cells, "own_class")
    vectors = found.rmatmul(torch.cat([between.basis, own.basis], dim=1))
    rank = int((torch.linalg.svdvals(vectors) > 1e-10).sum())
    assert rank == between.rank


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_random_groups_keep_the_global_mean(case: Case) -> None:
    problem, _, D = rows(case)
    true = gradients(problem).cells
    groups = true.regrouped(shuffled_labels(problem.labels, 0, 1))
    for name in ("between_class", "cross_class"):
        P = part(groups, name).to_dense()
        assert close(P @ P, P), name
    expected = D.T @ GlobalMean(true).to_dense() @ D
    assert close(D.T @ GlobalMean(groups).to_dense() @ D, expected)
    same = true.regrouped(problem.labels)
    assert close(BetweenClass(same).to_dense(), BetweenClass(true).to_dense())


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_what_of_the_means_the_scatter_does_not_span(case: Case) -> None:
    problem, _, D = rows(case)
    array = gradients(problem)
    B = D.T @ WithinClass(array.cells).to_dense() @ D
    keep = torch.eye(problem.size).double() - B @ torch.linalg.pinv(B, rtol=1e-11)
    expected = torch.linalg.eigvalsh(keep @ D.T @ D @ keep).flip(0)
    found = means_beyond_within(array.gram, CellMeans(array.cells).basis)
    count = min(len(found), len(expected))
    assert float((found[:count] - expected[:count]).abs().max()) < 1e-8 * float(D.norm()) ** 2


def test_complement_counts_dimensions() -> None:
    problem, found, _ = rows(CASES[0])
    within = WithinClass(gradients(problem).cells)
    assert within.rank == found.size - within.means.rank
    assert within.means.rank == 9
