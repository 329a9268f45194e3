"""Lanczos against dense matrices: identities first, then artefacts, memory and bad input."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepspec.krylov import lanczos, top_eigenpairs
from deepspec.krylov._inner import inner
from deepspec.krylov._lanczos import Recurrence
from deepspec.operators.matrix import MatrixOperator
from tests.deepspec.krylov.cases import SPECTRA, Diagonal, eigenvalues, normal, rotated


@pytest.mark.parametrize("name", SPECTRA)
def test_a_full_run_of_p_steps_gives_every_eigenvalue(name: str) -> None:
    values = eigenvalues(name)
    A = rotated(values)
    T = lanczos(A, A.size, normal(A.size), "full")
    scale = max(1.0, float(values.abs().max()))
    assert T.ritz_values.shape == values.shape
    assert (T.ritz_values - values).abs().max() < 1e-10 * scale


@pytest.mark.parametrize("name", SPECTRA)
def test_weights_are_those_of_the_start_vector(name: str) -> None:
    values = eigenvalues(name)
    A = rotated(values)
    start = normal(A.size, 3)
    T = lanczos(A, A.size, start, "full")
    own, vectors = torch.linalg.eigh(A.matrix)
    mass = (vectors.T @ (start / start.norm())).square()
    # Compared as distributions, half-way between eigenvalues that rounding cannot confuse.
    gaps = own.diff() > 1e-7 * max(1.0, float(own.abs().max()))
    for cut in ((own[1:] + own[:-1]) / 2)[gaps]:
        seen = T.ritz_weights[T.ritz_values < cut].sum()
        assert abs(float(seen - mass[own < cut].sum())) < 1e-9


@pytest.mark.parametrize("reorthogonalize", ["none", "full"])
@pytest.mark.parametrize("name", SPECTRA)
def test_ritz_values_lie_inside_the_spectrum(name: str, reorthogonalize: str) -> None:
    values = eigenvalues(name)
    T = lanczos(rotated(values), 20, normal(len(values)), reorthogonalize)
    slack = 1e-12 * max(1.0, float(values.abs().max()))
    assert T.ritz_values.min() >= values.min() - slack
    assert T.ritz_values.max() <= values.max() + slack
    assert abs(float(T.ritz_weights.sum()) - 1) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reorthogonalize", ["none", "full"])
def test_ritz_values_of_a_compression_are_of_what_is_left(
    reorthogonalize: str, dtype: torch.dtype
) -> None:
    """From a start with a large part in what was removed; at p steps, with nothing left over."""
    rest = torch.linspace(1, 2, 97, dtype=torch.float64)
    spectrum = torch.cat([torch.tensor([9.0, 8.0, -7.0]).double(), rest])
    A = rotated(spectrum, dtype)
    B = A.deflate(top_eigenpairs(A, 3, "magnitude"))
    outer = B.projector @ normal(100, dtype=dtype)
    slack = 100 * torch.finfo(dtype).eps
    for steps in (5, 100):
        T = lanczos(B, steps, outer + 1e-3 * normal(100, 1, dtype), reorthogonalize)
        assert float(T.ritz_values.min()) > 1 - slack
        assert float(T.ritz_values.max()) < 2 + slack
    if reorthogonalize == "full":
        assert (T.ritz_values - rest).abs().max() < slack
    with pytest.raises(ValueError, match="the range that it removed; start from another"):
        lanczos(B, 5, outer, reorthogonalize)


@pytest.mark.parametrize("name", SPECTRA)
def test_an_eigenvalue_lies_within_each_residual_bound(name: str) -> None:
    values = eigenvalues(name)
    T = lanczos(rotated(values), 9, normal(len(values)), "full")
    nearest = (T.ritz_values[:, None] - values).abs().min(dim=1).values
    assert (nearest <= T.residual_bounds + 1e-12 * float(values.abs().max() + 1)).all()


def test_the_basis_is_orthonormal_and_reduces_the_matrix() -> None:
    A = rotated(eigenvalues("condition 1e12"))
    T = lanczos(A, 30, normal(A.size), "full")
    assert T.basis is not None
    reduced = (
        torch.diag(T.diagonal) + torch.diag(T.off_diagonal, 1) + torch.diag(T.off_diagonal, -1)
    )
    assert (T.basis.T @ T.basis - torch.eye(30, dtype=torch.float64)).abs().max() < 1e-13
    assert (T.basis.T @ A.matrix @ T.basis - reduced).abs().max() < 1e-13


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=12),
    st.floats(0.1, 10),
    st.floats(-3, 3),
    st.integers(1, 6),
)
@settings(max_examples=30, deadline=None)
def test_shift_and_scale_carry_over(values: list, scale: float, shift: float, steps: int) -> None:
    spectrum = torch.tensor(values, dtype=torch.float64)
    start = normal(len(values))
    plain = lanczos(Diagonal(spectrum), steps, start, "full")
    moved = lanczos(Diagonal(scale * spectrum + shift), steps, start, "full")
    expected = scale * plain.ritz_values + shift
    # Compared through moments: where an invariant subspace is only nearly one, nodes of no weight
    # may differ.
    for power in (1, 2):
        seen = (moved.ritz_weights * moved.ritz_values**power).sum()
        wanted = (plain.ritz_weights * expected**power).sum()
        assert abs(float(seen - wanted)) < 1e-8 * (1 + float(expected.abs().max()) ** power)


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=12, unique=True), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_ritz_values_of_successive_steps_interlace(values: list, steps: int) -> None:
    A = Diagonal(torch.tensor(values, dtype=torch.float64))
    longer = lanczos(A, steps + 1, normal(len(values)), "full")
    shorter = longer.truncated(steps)
    assert (longer.ritz_values[:-1] <= shorter.ritz_values + 1e-12).all()
    assert (shorter.ritz_values <= longer.ritz_values[1:] + 1e-12).all()


@pytest.mark.parametrize(("name", "distinct"), [("identity", 1), ("zero", 1), ("rank one", 2)])
def test_an_invariant_subspace_ends_a_fast_run(name: str, distinct: int) -> None:
    A = rotated(eigenvalues(name))
    T = lanczos(A, 20, normal(A.size))
    assert T.exhausted
    assert len(T.ritz_values) == distinct
    assert float(T.residual_bounds.max()) == 0.0


def test_float32_stays_close_to_float64() -> None:
    values = eigenvalues("spike near the bulk")
    fine = lanczos(rotated(values), 30, normal(len(values)))
    coarse = lanczos(rotated(values, torch.float32), 30, normal(len(values), dtype=torch.float32))
    gap = fine.ritz_values[-1] - coarse.ritz_values[-1]
    assert abs(float(gap)) < 1e-5 * float(values.max())


def test_inner_products_accumulate_in_float64() -> None:
    a, b = normal(200_001, 1, torch.float32), normal(200_001, 2, torch.float32)
    exact = float(a.double() @ b.double())
    assert abs(inner(a, b) - exact) < 1e-12 * float(a.double().norm() * b.double().norm())


def test_a_fast_run_holds_three_vectors() -> None:
    """Counted when a product has just been made: the previous vector, this one, the product."""
    size, counts = 300_000, []

    class Counting(Diagonal):
        def _product(self, columns: torch.Tensor) -> torch.Tensor:
            image = super()._product(columns)
            long = [x for x in gc.get_objects() if type(x) is torch.Tensor and x.numel() >= size]
            counts.append(len({x.untyped_storage().data_ptr() for x in long}))
            return image

    A = Counting(torch.linspace(0, 1, size))
    start = normal(size, dtype=torch.float32)
    run = Recurrence(A, start / start.norm(), 5, False, 0)
    gc.collect()
    del start
    while not run.finished:
        run.step()
    assert max(counts) == 1 + 3  # the operator's own diagonal, and three


def test_a_product_that_returns_its_argument_does_no_harm() -> None:
    class Identity(Diagonal):
        def _product(self, columns: torch.Tensor) -> torch.Tensor:
            return columns

    T = lanczos(Identity(torch.ones(10, dtype=torch.float64)), 4, normal(10), "full")
    assert torch.allclose(T.ritz_values, torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_products_that_are_not_finite_are_named(bad: float) -> None:
    A = Diagonal(torch.tensor([1.0, bad, 2.0]))
    with pytest.raises(FloatingPointError, match="product 1 of Diagonal"):
        lanczos(A, 3, torch.ones(3))


@pytest.mark.parametrize("length", [1e-200, 1e200])
def test_a_start_may_be_of_any_length(length: float) -> None:
    A = rotated(eigenvalues("indefinite"))
    wanted = lanczos(A, 5, normal(60)).ritz_values
    assert torch.allclose(lanczos(A, 5, length * normal(60)).ritz_values, wanted)


def test_products_whose_squares_overflow_are_named() -> None:
    A = rotated(1e160 * eigenvalues("indefinite"))
    with pytest.raises(FloatingPointError, match=r"square overflows.*scale the operator"):
        lanczos(A, 5, normal(60))
    assert lanczos(1e-160 * A, 5, normal(60)).ritz_values.isfinite().all()


def test_bad_arguments() -> None:
    A = MatrixOperator(torch.eye(3))
    with pytest.raises(ValueError, match="steps of at least 1, got 0"):
        lanczos(A, 0, torch.ones(3))
    with pytest.raises(ValueError, match='"none" or "full"'):
        lanczos(A, 1, torch.ones(3), "some")
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        lanczos(A, 1, torch.ones(4))
    with pytest.raises(ValueError, match="not zero"):
        lanczos(A, 1, torch.zeros(3))
    with pytest.raises(ValueError, match="a seed of at least 0"):
        lanczos(A, 1, torch.ones(3), seed=-1)
    with pytest.raises(TypeError, match=r"integer or a torch\.Generator, got None"):
        lanczos(A, 1, torch.ones(3), seed=None)
    with pytest.raises(TypeError, match=r"torch\.float32"):
        lanczos(A, 1, torch.ones(3, dtype=torch.float64))
