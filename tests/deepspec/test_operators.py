"""Every operator of a classifier against the dense matrix by its definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepspec import ClassStructure, GaussNewton, Hessian, Problem, Residual
from tests import oracles
from tests.cases import CASES, Attention, Case, hold

NAMES = ["between_class", "cross_class", "within_class", "own_class"]
HELD = [(0, "layers"), (10**9, "layers"), (10**9, "linearised")]


def relative(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


def problem_of(case: Case, budget: int | float, **options: object) -> Problem:
    model, features, labels = case.build()
    return Problem(
        model,
        (features, labels),
        num_classes=case.num_classes,
        batch_size=case.batch_size,
        memory_budget=budget,
        **options,
    )


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize(("budget", "way"), HELD)
def test_hessian_gauss_newton_and_residual_are_what_they_are_defined_to_be(
    case: Case, budget: int, way: str
) -> None:
    model, features, labels = case.build()
    problem = problem_of(case, budget)
    hold(problem, way)
    hess = oracles.hessian(model, features, labels)
    gauss_newton = oracles.gauss_newton(model, features)
    for operator, dense in [
        (Hessian(problem), hess),
        (GaussNewton(problem), gauss_newton),
        (Residual(problem), hess - gauss_newton),
    ]:
        operator.prepare(matvecs=1)
        assert relative(operator.to_dense(), dense) < 1e-10
    for held in ("jacobian", "hessian", "residual"):
        assert (problem.plan[f"{held}: batches held"] > 0) == (budget > 0)


@pytest.mark.parametrize(("budget", "way"), HELD)
@pytest.mark.parametrize("convention", ["jmlr2020", "icml2019"])
def test_every_part_is_what_it_is_defined_to_be(
    case: Case, budget: int, way: str, convention: str
) -> None:
    model, features, labels = case.build()
    problem = problem_of(case, budget)
    parts = ClassStructure(problem, convention).named()
    dense = oracles.parts_of_g(model, features, labels, convention)
    hold(problem, way)
    GaussNewton(problem).prepare(matvecs=1)
    scale = oracles.gauss_newton(model, features).abs().max()
    for name in NAMES:
        error = (parts[name].to_dense() - dense[name]).abs().max() / scale
        assert float(error) < 1e-12, name


@pytest.mark.parametrize("convention", ["jmlr2020", "icml2019"])
def test_the_parts_sum_to_g(case: Case, convention: str) -> None:
    problem = problem_of(case, 0)
    total = sum(part.to_dense() for part in ClassStructure(problem, convention).named().values())
    assert relative(total, GaussNewton(problem).to_dense()) < 1e-12


def test_a_difference_of_parts_is_one_operator_and_one_pass(case: Case) -> None:
    problem = problem_of(case, 0)
    G, parts = GaussNewton(problem), ClassStructure(problem)
    knocked_out = G - parts.between_class
    passes = 0
    functions = problem.engine.jacobians.functions

    def counted():
        nonlocal passes
        passes += 1
        return functions()

    problem.engine.check()
    problem.engine.jacobians.functions = counted
    v = torch.ones(problem.size, dtype=torch.float64)
    result = knocked_out @ v
    assert 1 <= passes <= 2
    assert relative(result, G @ v - parts.between_class @ v) < 1e-12


def test_attention_tied_layers_and_embeddings() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Attention().double().eval()
        tokens, labels = torch.randint(7, (5, 3)), torch.tensor([0, 1, 2, 0, 1])
    problem = Problem(model, (tokens, labels), batch_size=2)
    # The oracle differentiates twice too, so it needs the plain attention kernel as well.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        hess = oracles.hessian(model, tokens, labels)
        gauss_newton = oracles.gauss_newton(model, tokens)
    H, G = Hessian(problem), GaussNewton(problem)
    for _ in range(2):
        assert relative(H.to_dense(), hess) < 1e-10
        assert relative(G.to_dense(), gauss_newton) < 1e-10
        hold(problem, "linearised")
        H.prepare(1)
        G.prepare(1)


class NoForwardMode(torch.autograd.Function):
    """Squares, and knows reverse mode only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return NoForwardMode.apply(x)


def test_a_module_without_forward_mode_is_named_and_still_right() -> None:
    case = CASES[0]
    _, features, labels = case.build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), Square(), nn.Linear(5, 3)).double()
    with pytest.warns(RuntimeWarning, match=r"1 \(Square\)"):
        problem = Problem(model, (features, labels), batch_size=4)
    hess = oracles.hessian(model, features, labels)
    gauss_newton = oracles.gauss_newton(model, features)
    G = GaussNewton(problem).to_dense()
    assert relative(G, gauss_newton) < 1e-10
    H = Hessian(problem)
    hold(problem, "linearised")
    H.prepare(1)
    assert relative(H.to_dense(), hess) < 1e-10
    parts = ClassStructure(problem)
    assert relative(parts.total.to_dense(), gauss_newton) < 1e-12


def test_float32_agrees_to_its_precision(case: Case) -> None:
    exact, single = problem_of(case, 0), problem_of(case, 0, dtype=torch.float32)
    for kind in (Hessian, GaussNewton, Residual):
        assert relative(kind(single).to_dense().double(), kind(exact).to_dense()) < 2e-5


def test_frozen_parameters_are_no_part_of_theta() -> None:
    case = CASES[0]
    model, features, labels = case.build()
    dense = oracles.hessian(model, features, labels)
    model[0].weight.requires_grad_(False)
    problem = Problem(model, (features, labels))
    skip = model[0].weight.numel()
    assert problem.size == dense.shape[0] - skip
    assert relative(Hessian(problem).to_dense(), dense[skip:, skip:]) < 1e-10


def test_probabilities_that_underflow_leave_the_identity_exact() -> None:
    model, features, labels = CASES[0].build()
    with torch.no_grad():
        model[-1].weight.mul_(3000.0)
    problem = Problem(model, (features, labels), batch_size=4)
    assert float(problem.probabilities.min()) == 0.0
    for convention in ("jmlr2020", "icml2019"):
        parts = ClassStructure(problem, convention)
        G = GaussNewton(problem).to_dense()
        total = sum(part.to_dense() for part in parts.named().values())
        assert torch.isfinite(total).all()
        assert float((total - G).abs().max()) <= 1e-12 * max(float(G.abs().max()), 1e-300)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 9), st.randoms(use_true_random=False))
def test_neither_batches_nor_order_matter(batch_size: int, random) -> None:
    model, features, labels = CASES[0].build()
    order = list(range(len(labels)))
    random.shuffle(order)
    reference = Problem(model, (features, labels), batch_size=9)
    problem = Problem(model, (features[order], labels[order]), batch_size=batch_size)
    v = torch.linspace(-1, 1, problem.size, dtype=torch.float64)
    for kind in (Hessian, GaussNewton, Residual):
        assert relative(kind(problem) @ v, kind(reference) @ v) < 1e-12
    for name in NAMES:
        left = getattr(ClassStructure(problem), name) @ v
        right = getattr(ClassStructure(reference), name) @ v
        assert float((left - right).abs().max()) < 1e-12


@settings(max_examples=12, deadline=None)
@given(st.permutations(range(3)))
def test_relabelling_the_classes_changes_nothing(order: list[int]) -> None:
    model, features, labels = CASES[0].build()
    renamed, _, _ = CASES[0].build()
    inverse = torch.tensor(order).argsort()
    with torch.no_grad():
        renamed[-1].weight.copy_(model[-1].weight[order])
        renamed[-1].bias.copy_(model[-1].bias[order])
    left = ClassStructure(Problem(model, (features, labels)))
    right = ClassStructure(Problem(renamed, (features, inverse[labels])))
    for name in NAMES:
        values = [torch.linalg.eigvalsh(getattr(s, name).to_dense()) for s in (left, right)]
        assert float((values[0] - values[1]).abs().max()) < 1e-12


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_linear_symmetric_and_positive(seed: int) -> None:
    problem = problem_of(CASES[1], 0)
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, problem.size, generator=generator, dtype=torch.float64)
    parts = ClassStructure(problem).named()
    for operator in [Hessian(problem), GaussNewton(problem), *parts.values()]:
        Au, Av = operator @ u, operator @ v
        scale = float(Au.norm() * v.norm()) + 1e-300
        assert abs(float(Au @ v - u @ Av)) / scale < 1e-12
        assert relative(operator @ (2 * u - v), 2 * Au - Av) < 1e-11
    for operator in parts.values():
        assert float(u @ (operator @ u)) >= -1e-14


def test_columns_are_products(case: Case) -> None:
    problem = problem_of(case, 0)
    V = torch.randn(
        problem.size, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    for at_once in (1, 3, 16):
        for operator in (GaussNewton(problem), ClassStructure(problem).cross_class):
            problem.plan = {**problem.plan, "columns at once: TransientJacobian": at_once}
            apart = torch.stack([operator @ v.contiguous() for v in V.T], dim=1)
            assert relative(operator @ V, apart) < 1e-12
