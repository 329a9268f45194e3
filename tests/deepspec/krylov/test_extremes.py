"""The ends of a spectrum against dense eigenvalues, and their bounds."""

import pytest
import torch

from deepspec.krylov import extreme_eigenvalues
from deepspec.operators import ColumnSpace
from tests.deepspec.krylov.cases import SPECTRA, Diagonal, eigenvalues, rotated


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("steps", [4, 12, 400])
def test_an_eigenvalue_lies_within_each_bound(name: str, steps: int) -> None:
    values = eigenvalues(name)
    found = extreme_eigenvalues(rotated(values), steps)
    for end, bound in (
        (found.smallest, found.smallest_residual),
        (found.largest, found.largest_residual),
    ):
        assert float((values - end).abs().min()) <= bound
    rounding = 1e-13 * float(values.abs().max())
    assert float(values.min()) <= found.smallest + rounding
    assert found.largest <= float(values.max()) + rounding
    assert 1 <= found.matvecs <= steps


def test_many_steps_find_both_ends() -> None:
    A = Diagonal(torch.linspace(-2, 5, 90, dtype=torch.float64))
    found = extreme_eigenvalues(A, 90, seed=torch.Generator().manual_seed(3))
    assert found.smallest == pytest.approx(-2, abs=1e-10)
    assert found.largest == pytest.approx(5, abs=1e-10)
    assert found.matvecs == A.matvecs


def test_what_was_projected_out_is_no_end() -> None:
    A = Diagonal(torch.linspace(0, 1, 40, dtype=torch.float64))
    rest = A.project_out(ColumnSpace(torch.eye(40, dtype=torch.float64)[:, -1:]))
    assert extreme_eigenvalues(rest).largest == pytest.approx(38 / 39, abs=1e-10)


def test_float32_says_what_rounding_hides() -> None:
    A = Diagonal(torch.linspace(0, 1, 40))
    found = extreme_eigenvalues(A, 200)
    assert abs(found.largest - 1) <= found.largest_residual
    assert found.largest_residual >= 10 * torch.finfo(torch.float32).eps * found.largest


def test_steps_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="steps of at least 1, got 0"):
        extreme_eigenvalues(Diagonal(torch.ones(3)), 0)
