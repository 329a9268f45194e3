"""Operators of nets whose probabilities are nearly zero and one, to full relative accuracy."""

import pytest
import torch
from torch import Tensor, nn

from deepspec import ClassStructure, GaussNewton, Hessian, Problem, Residual
from deepspec.class_structure import exact_spectrum
from deepspec.classifier.softmax import mean_minus_each, softmax_residual
from tests import oracles


def fitted(margin: float) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear net on well separated clusters; 1 − p of the true class is about e^−margin."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        y = torch.arange(24) % 3
        X = torch.eye(4)[y].double() + 0.05 * torch.randn(24, 4).double()
        model = nn.Linear(4, 3).double()
    with torch.no_grad():
        model.weight.copy_(margin * torch.eye(3, 4))
        model.bias.zero_()
    return model, X, y


def kernels(p: Tensor) -> Tensor:
    """diag p − p pᵀ as Σ_{a<b} p_a p_b (e_a − e_b)(e_a − e_b)ᵀ: nothing is subtracted."""
    products = p[:, :, None] * p[:, None, :]
    others = products * (1 - torch.eye(p.shape[1], dtype=p.dtype))
    return torch.diag_embed(others.sum(dim=2)) - others


@pytest.mark.parametrize("margin", [5.0, 16.0, 32.0, 60.0])
def test_every_operator_and_the_gradient(margin: float) -> None:
    model, X, y = fitted(margin)
    problem = Problem(model, (X, y), batch_size=10)
    J = oracles.jacobian(model, X)
    G = torch.einsum("icp,icd,idq->pq", J, kernels(problem.probabilities), J) / len(X)

    def error(matrix: Tensor, truth: Tensor = G) -> float:
        return float((matrix - truth).abs().max() / truth.abs().max())

    assert error(GaussNewton(problem).to_dense()) < 1e-13
    assert error(Hessian(problem).to_dense()) < 1e-13  # a linear net has no E
    assert float(Residual(problem).to_dense().abs().max()) <= 1e-13 * float(G.abs().max())
    for convention in ("jmlr2020", "icml2019"):
        parts = ClassStructure(problem, convention).named().values()
        assert error(sum(part.to_dense() for part in parts)) < 1e-12
    values = torch.linalg.eigvalsh(G).flip(0)
    found = exact_spectrum(GaussNewton(problem)).eigenvalues[:4]
    assert float((found - values[:4]).abs().max() / values[0]) < 1e-10
    wrong = problem.probabilities * (1 - torch.nn.functional.one_hot(y, 3))
    slopes = wrong - torch.nn.functional.one_hot(y, 3) * wrong.sum(dim=1, keepdim=True)
    gradient = torch.einsum("icp,ic->p", J, slopes) / len(X)
    assert error(problem.gradient(), gradient) < 1e-13
    doubt = -slopes.gather(1, y[:, None])
    assert problem.loss == pytest.approx(-float(torch.log1p(-doubt).mean()), rel=1e-12)


def test_the_differences_are_those_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.softmax(torch.randn(7, 4, generator=generator).double(), dim=1)
    u = torch.randn(7, 4, 2, generator=generator).double()
    expected = torch.einsum("ic,ick->ik", p, u)[:, None] - u
    assert float((mean_minus_each(p, u) - expected).abs().max()) < 1e-14
    hot = torch.nn.functional.one_hot(torch.arange(7) % 4, 4).double()
    assert float((softmax_residual(p, hot) - (p - hot)).abs().max()) < 1e-15
