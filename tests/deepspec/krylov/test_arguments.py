"""What is asked of every estimator's arguments, once for all of them."""

import pytest
import torch

from deepspec.krylov import (
    frobenius_norm,
    joined_spectrum,
    lanczos,
    log_spectral_density,
    spectral_density,
    top_eigenpairs,
    trace,
)
from deepspec.krylov.baselines import kernel_polynomial_density, subspace_iteration
from tests.deepspec.krylov.cases import Diagonal

ESTIMATORS = [
    spectral_density,
    log_spectral_density,
    kernel_polynomial_density,
    top_eigenpairs,
    subspace_iteration,
    trace,
    frobenius_norm,
    joined_spectrum,
]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_matrix_has_to_be_wrapped(estimator) -> None:
    with pytest.raises(TypeError, match=r"got Tensor; wrap a matrix as deepspec\.MatrixOperator"):
        estimator(torch.eye(3), 4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("count", [2.5, "4", None, True])
def test_counts_are_integers(estimator, count) -> None:
    A = Diagonal(torch.linspace(0, 1, 9))
    with pytest.raises(TypeError, match="as an integer"):
        estimator(A, count)
    with pytest.raises(TypeError, match="as an integer"):
        estimator(A, 4, seed=1.5)


@pytest.mark.parametrize(
    ("start", "error", "said"),
    [
        ([1.0] * 9, TypeError, "got list"),
        (torch.ones(9).double(), TypeError, r"got torch.float64"),
        (torch.ones(9, device="meta"), TypeError, "on meta"),
        (torch.full((9,), torch.nan), ValueError, "finite and not zero"),
        (torch.zeros(9), ValueError, "finite and not zero"),
        (torch.ones(8), ValueError, r"got shape \(8,"),
    ],
)
def test_starts_are_vectors_that_the_operator_takes(start, error, said) -> None:
    A = Diagonal(torch.linspace(0, 1, 9))
    with pytest.raises(error, match=said):
        lanczos(A, 3, start)
    columns = start[:, None] if isinstance(start, torch.Tensor) else start
    with pytest.raises(error, match=said):
        top_eigenpairs(A, 3, start=columns)
    assert A.matvecs == 0


def test_limits_are_checked_before_the_work() -> None:
    A = Diagonal(torch.linspace(0, 1, 9))
    with pytest.raises(ValueError, match="max_matvecs of at least 1, got 0"):
        top_eigenpairs(A, 3, max_matvecs=0)
    with pytest.raises(ValueError, match="tol above 0"):
        top_eigenpairs(A, 3, tol=float("nan"))
    with pytest.raises(ValueError, match="kappa above 1"):
        spectral_density(A, 3, kappa=float("inf"))
    assert A.matvecs == 0
