"""Rows that are tokens and pixels, every loss and every weighting, against PyTorch's own loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import deepspec
from deepspec import GaussNewton, Hessian, Problem, Residual
from tests.row_cases import FORMS, LENGTH, Form, V, dense, mlp, segmenter, soft_tokens, transformer

TOLERANCE = 1e-10


def close(found: Tensor, expected: Tensor) -> bool:
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) < TOLERANCE * scale


@pytest.fixture(scope="module", params=FORMS, ids=[form.name for form in FORMS])
def case(request: pytest.FixtureRequest) -> tuple[Form, Problem, dict[str, Tensor]]:
    form = request.param
    net, inputs, labels = form.build()
    problem = Problem(net, (inputs, labels), batch_size=2, memory_budget=0, **form.options)
    return form, problem, dense(form, net, inputs, labels)


def test_loss_gradient_and_matrices_are_pytorchs(
    case: tuple[Form, Problem, dict[str, Tensor]],
) -> None:
    _, problem, expected = case
    assert abs(problem.loss - float(expected["loss"])) < TOLERANCE
    assert close(problem.gradient(), expected["gradient"])
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.size, 3, generator=generator, dtype=torch.float64)
    for name, operator in (
        ("G", GaussNewton(problem)),
        ("Hess", Hessian(problem)),
        ("E", Residual(problem)),
    ):
        assert close(operator @ v, expected[name] @ v), name


def test_exact_spectra_are_those_of_dense_matrices(
    case: tuple[Form, Problem, dict[str, Tensor]],
) -> None:
    _, problem, expected = case
    found = deepspec.exact_spectrum(GaussNewton(problem)).eigenvalues
    values = torch.linalg.eigvalsh(expected["G"]).flip(0)
    assert close(found, values[: len(found)])
    assert float(values[len(found) :].abs().max()) < TOLERANCE if len(found) < len(values) else True
