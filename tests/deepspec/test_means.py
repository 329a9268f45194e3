"""The means of the class structure against dense brute force, entry by entry."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from deepspec import ClassStructure, GaussNewton, Problem
from deepspec.class_structure import (
    Means,
    cell_means,
    class_means,
    cross_class_deviations,
    own_class_means,
)
from tests import oracles
from tests.cases import CASES, Attention, Case

FAMILIES = {
    "means": cell_means,
    "between_class": class_means,
    "cross_class": cross_class_deviations,
    "own_class": own_class_means,
}
CONVENTIONS = ["jmlr2020", "icml2019"]


def structure_of(case: Case, convention: str = "jmlr2020", **options: object) -> ClassStructure:
    model, features, labels = case.build()
    sizes = {"num_classes": case.num_classes, "batch_size": case.batch_size}
    return ClassStructure(Problem(model, (features, labels), **sizes, **options), convention)


@cache
def dense_parts(case: Case, convention: str) -> dict[str, Tensor]:
    return oracles.parts_of_g(*case.build(), convention)


@cache
def jacobian(case: Case) -> Tensor:
    model, features, _ = case.build()
    return oracles.jacobian(model, features)


def dense_part(case: Case, convention: str, name: str) -> Tensor:
    parts = dense_parts(case, convention)
    if name == "means":
        return parts["between_class"] + parts["cross_class"] + parts["own_class"]
    return parts[name]


class Kernel:
    """Θ from the dense Jacobian."""

    def __init__(self, case: Case) -> None:
        J = jacobian(case).flatten(0, 1)
        self.matrix = J @ J.T


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("contracted", [False, True])
def test_the_gram_has_the_eigenvalues_of_the_operator(
    case: Case, name: str, convention: str, contracted: bool
) -> None:
    kernel = Kernel(case) if contracted else None
    means = FAMILIES[name](structure_of(case, convention), kernel)
    dense = torch.linalg.eigvalsh(dense_part(case, convention, name)).flip(0)
    values = means.eigenvalues()
    shared = min(len(values), len(dense))
    scale = float(dense[0])
    assert float((values[:shared] - dense[:shared]).abs().max()) < 1e-12 * scale
    assert float(values[shared:].abs().sum() + dense[shared:].abs().sum()) < 1e-12 * scale
    assert torch.equal(means.gram, means.gram.T)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_vectors_are_the_means_by_their_definition(case: Case, convention: str) -> None:
    _, features, labels = case.build()
    J = jacobian(case)
    means = cell_means(structure_of(case, convention))
    p = means.structure.problem.probabilities
    vectors = means.vectors()
    assert vectors.shape == (J.shape[2], len(means.index))
    for place, (c, c2) in enumerate(means.index):
        members = (labels == c).nonzero()[:, 0].tolist()
        unit = nn.functional.one_hot(torch.tensor(c2), case.num_classes).double()
        g = torch.stack([J[i].T @ (p[i] - unit) for i in members])
        if convention == "jmlr2020":
            share, weight = p[members, c2] / p[members, c2].sum(), p[members, c2].sum()
        else:
            share, weight = (
                p[members, c2].sqrt() / len(members),
                torch.tensor(float(len(members))).double(),
            )
        expected = (weight / len(features)).sqrt() * (share[:, None] * g).sum(dim=0)
        assert float((vectors[:, place] - expected).abs().max()) < 1e-12


def test_the_gram_is_that_of_the_vectors(case: Case, name: str) -> None:
    means = FAMILIES[name](structure_of(case))
    vectors = means.vectors()
    scale = float(means.gram.abs().max())
    assert float((vectors.T @ vectors - means.gram).abs().max()) < 1e-12 * scale
    root = means.weights.sqrt()
    assert torch.allclose(means.plain_gram * root * root[:, None], means.gram, rtol=1e-14, atol=0)


def test_only_classes_with_samples_have_means() -> None:
    case = CASES[2]
    structure = structure_of(case)
    assert class_means(structure).index == ((0,), (2,))
    assert cell_means(structure).index == ((0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2))
    assert cross_class_deviations(structure).index == ((0, 1), (0, 2), (2, 0), (2, 1))
    assert own_class_means(structure).index == ((0, 0), (2, 2))


def test_eigenvectors_are_those_of_the_operator_and_orthonormal(case: Case, name: str) -> None:
    means = FAMILIES[name](structure_of(case))
    values = means.eigenvalues()
    rank = int((values > 1e-8 * values[0]).sum())
    vectors = means.eigenvectors(rank)
    gram = vectors.T @ vectors
    assert float((gram - torch.eye(rank)).abs().max()) < 1e-12
    dense = dense_part(case, "jmlr2020", name)
    assert float((dense @ vectors - vectors * values[:rank]).abs().max()) < 1e-9 * float(values[0])


@pytest.mark.parametrize("k", [0, 4])
def test_more_eigenvectors_than_the_rank_are_refused(k: int) -> None:
    means = class_means(structure_of(CASES[0]))
    with pytest.raises(ValueError, match=f"expected 1 to 3 eigenvectors .* got {k}"):
        means.eigenvectors(k)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_projector_takes_the_operator_away(case: Case, name: str, convention: str) -> None:
    structure = structure_of(case, convention)
    means = FAMILIES[name](structure)
    projector = means.projector()
    dense = projector.to_dense()
    left, singular, _ = torch.linalg.svd(means.vectors(), full_matrices=False)
    basis = left[:, singular > 1e-7 * singular[0]]
    assert projector.rank == basis.shape[1] == round(float(dense.trace()))
    assert float((dense - basis @ basis.T).abs().max()) < 1e-8
    G = GaussNewton(structure.problem)
    rest = torch.eye(len(dense), dtype=torch.float64) - dense
    knocked_out = G.project_out(projector)
    v = torch.linspace(-1, 1, len(dense), dtype=torch.float64)
    assert float((knocked_out @ v - rest @ (G @ (rest @ v))).abs().max()) < 1e-12
    operator = {**structure.named(), "means": structure.means}[name]
    gone = operator.project_out(projector) @ v
    assert float(gone.abs().max()) < 1e-9 * float((operator @ v).abs().max())
    assert projector.fingerprint()["span"] == means.name


def test_a_small_budget_changes_nothing(case: Case) -> None:
    whole, pieces = structure_of(case), structure_of(case, memory_budget=0)
    gram = cell_means(whole).gram
    scale = float(gram.abs().max())
    assert float((cell_means(pieces).gram - gram).abs().max()) < 1e-14 * scale


def test_float32_agrees_to_its_precision(case: Case, name: str) -> None:
    exact = FAMILIES[name](structure_of(case))
    single = FAMILIES[name](structure_of(case, dtype=torch.float32))
    assert single.gram.dtype == torch.float64
    scale = float(exact.gram.abs().max())
    assert float((single.gram - exact.gram).abs().max()) < 1e-5 * scale
    assert single.projector().dtype == single.eigenvectors(1).dtype == torch.float32


def test_attention_and_frozen_parameters() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Attention().double().eval()
        tokens, labels = torch.randint(7, (5, 3)), torch.tensor([0, 1, 2, 0, 1])
    model.embed.weight.requires_grad_(False)
    structure = ClassStructure(Problem(model, (tokens, labels), batch_size=2))
    dense = torch.linalg.eigvalsh(structure.means.to_dense()).flip(0)
    values = cell_means(structure).eigenvalues()
    assert float((values - dense[: len(values)]).abs().max()) < 1e-12 * float(dense[0])


@pytest.mark.parametrize("family", [cell_means, class_means])
def test_probabilities_that_underflow(family: Callable[[ClassStructure], Means]) -> None:
    model, features, labels = CASES[0].build()
    with torch.no_grad():
        model[-1].weight.mul_(3000.0)
    problem = Problem(model, (features, labels), batch_size=4)
    means = family(ClassStructure(problem))
    assert torch.isfinite(means.gram).all()
    assert torch.isfinite(means.plain_gram).all()
    assert torch.isfinite(means.projector() @ problem.gradient()).all()


def test_a_kernel_of_another_problem_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tangent kernel of this problem.*\(27, 27\)"):
        cell_means(structure_of(CASES[0]), Kernel(CASES[2]))


def test_backward_passes_are_cheaper_than_a_contraction_over_few_parameters() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features, labels = torch.randn(200, 2).double(), torch.randint(3, (200,))
        model = nn.Linear(2, 3).double()

    class Unread:
        @property
        def matrix(self) -> Tensor:
            return torch.full((600, 600), torch.nan, dtype=torch.float64)

    structure = ClassStructure(Problem(model, (features, labels)))
    assert torch.isfinite(class_means(structure, Unread()).gram).all()


def test_two_classes_of_which_one_is_empty_have_no_deviations() -> None:
    net = torch.nn.Linear(1, 2, dtype=torch.float64)
    data = torch.ones(3, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    structure = ClassStructure(Problem(net, data))
    assert float(cross_class_deviations(structure).eigenvalues().abs().max()) == 0.0
