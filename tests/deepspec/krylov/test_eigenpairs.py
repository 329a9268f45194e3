"""Eigenpairs against dense ones: all ends, multiplicities, starts, budgets, failures."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from deepspec.krylov import Eigenpairs, NotConverged, top_eigenpairs
from deepspec.krylov.baselines import subspace_iteration
from deepspec.operators.matrix import MatrixOperator
from deepspec.operators.projectors import ColumnSpace
from tests.deepspec.krylov.cases import SPECTRA, Diagonal, eigenvalues, normal, rotated


def wanted(values: torch.Tensor, k: int, which: str) -> torch.Tensor:
    key = {"largest": values, "smallest": -values, "magnitude": values.abs()}[which]
    return values[key.argsort(descending=True, stable=True)[:k]].sort(descending=True).values


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("name", sorted(set(SPECTRA) - {"condition 1e12"}))
def test_against_dense(name: str, which: str, dtype: torch.dtype) -> None:
    values = eigenvalues(name)
    A = rotated(values, dtype)
    k = min(5, A.size)
    pairs = top_eigenpairs(A, 5, which)
    expected = wanted(values, k, which)
    if which == "magnitude":
        difference = pairs.values.abs().double().sort()[0] - expected.abs().sort()[0]
    else:
        difference = pairs.values.double() - expected
    slack = (1e-9 if dtype == torch.float64 else 2e-5) * max(1.0, float(values.abs().max()))
    assert difference.abs().max() < slack
    assert (pairs.vectors.T @ pairs.vectors - torch.eye(k, dtype=dtype)).abs().max() < slack
    residual = (A.matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    assert (residual <= 2 * pairs.residuals + slack).all()
    assert (pairs.values.diff() <= 0).all()


def test_condition_1e12_gives_the_large_end() -> None:
    values = eigenvalues("condition 1e12")
    pairs = top_eigenpairs(rotated(values), 10)
    assert (pairs.values - values.flip(0)[:10]).abs().max() < 1e-10


def test_signs_are_right_where_the_norm_would_lose_them() -> None:
    A = rotated(torch.tensor([-9.0, 8.0, -7.0, 0.5, 0.1, 0.0], dtype=torch.float64))
    assert torch.allclose(
        top_eigenpairs(A, 3, "magnitude").values, torch.tensor([8.0, -7.0, -9.0]).double()
    )
    assert torch.allclose(
        subspace_iteration(A, 3).values, torch.tensor([8.0, -7.0, -9.0]).double(), atol=1e-5
    )


@pytest.mark.parametrize("copies", [2, 5, 9])
def test_copies_are_not_lost(copies: int) -> None:
    bulk = torch.linspace(0, 0.5, 400, dtype=torch.float64)
    spectrum = torch.cat([torch.full((copies,), 3.0, dtype=torch.float64), bulk])
    for seed in range(5):
        pairs = top_eigenpairs(Diagonal(spectrum), copies, seed=seed)
        assert (pairs.values - 3).abs().max() < 1e-9
        assert pairs.miss_probability < 0.01


def test_copies_without_a_gap_after_them_are_not_vouched_for() -> None:
    """Tenfold values a hundredth apart: no small number of products rules out a missed copy."""
    spectrum = torch.linspace(0, 1, 100, dtype=torch.float64).repeat_interleave(10)
    pairs = top_eigenpairs(Diagonal(spectrum), 2, seed=0)
    assert pairs.miss_probability > 0.5
    assert float(top_eigenpairs(Diagonal(spectrum).deflate(pairs), 1).values[0]) > 1 - 1e-9


ARPACK_CASES = {
    "outliers on a bulk": np.r_[np.linspace(3, 20, 10), np.linspace(0.1, 2, 1990)],
    "a net's": np.r_[10 * 0.7 ** np.arange(10), 0.2 * np.linspace(0, 1, 1990) ** 4],
    "1/i": 1 / np.arange(1, 2001.0),
    "geometric": 0.8 ** np.arange(2000),
    "tenth at the edge": np.r_[np.linspace(2, 9, 9), np.linspace(0, 1, 1991)],
    "fourfold": np.r_[np.repeat([3.0, 2.0, 1.0], 4), np.linspace(0, 0.3, 1988)],
}


@pytest.mark.parametrize("name", ARPACK_CASES)
def test_products_beside_arpack(name: str) -> None:
    spectrum = ARPACK_CASES[name]
    ours, theirs = [], []
    for seed in range(3):
        A = Diagonal(torch.from_numpy(spectrum))
        pairs = top_eigenpairs(A, 10, tol=1e-6, seed=seed)
        assert pairs.matvecs == A.matvecs
        ours.append(A.matvecs)
        B = Diagonal(torch.from_numpy(spectrum))
        matrix = LinearOperator(
            B.shape, matvec=lambda x, B=B: (B @ torch.from_numpy(x.ravel())).numpy(), dtype=float
        )
        eigsh(matrix, 10, which="LA", tol=1e-6, v0=normal(2000, seed).numpy())
        theirs.append(B.matvecs)
        expected = np.sort(spectrum)[::-1][:10].copy()
        assert np.abs(pairs.values.numpy() - expected).max() < 1e-8
    assert np.mean(ours) <= 1.2 * np.mean(theirs)


def test_a_good_start_block_saves_products() -> None:
    spectrum = torch.cat([torch.linspace(3, 6, 10), torch.linspace(0, 1, 990)]).double()
    exact = torch.eye(1000, dtype=torch.float64)[:, :10]
    close = exact + 1e-3 * torch.stack([normal(1000, i) for i in range(10)], dim=1)
    plain = top_eigenpairs(Diagonal(spectrum), 10)
    helped = top_eigenpairs(Diagonal(spectrum), 10, start=close)
    assert torch.allclose(plain.values, helped.values, atol=1e-9)
    assert helped.matvecs < plain.matvecs
    assert top_eigenpairs(Diagonal(spectrum), 10, start=exact).matvecs < helped.matvecs


def test_reported_residuals_are_no_smaller_than_the_true_ones() -> None:
    spectrum = torch.cat([torch.zeros(390), torch.arange(1.0, 11.0)]).double()
    for seed in range(5):
        A = rotated(spectrum, torch.float32, seed)
        pairs = top_eigenpairs(A, 5)
        true = (A.matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
        assert (true <= pairs.residuals).all()


def test_a_start_may_be_a_leaf_of_a_graph(tmp_path) -> None:
    A = Diagonal(torch.linspace(0, 1, 60, dtype=torch.float64))
    start = normal(60)[:, None].requires_grad_()
    pairs = top_eigenpairs(A, 2, start=start, checkpoint=tmp_path)
    assert not pairs.vectors.requires_grad
    assert torch.equal(pairs.values, top_eigenpairs(A, 2, start=start.detach()).values)


def test_little_memory_costs_products_not_results() -> None:
    spectrum = torch.linspace(0, 1, 300, dtype=torch.float64) ** 2
    small = top_eigenpairs(Diagonal(spectrum), 3, max_subspace=8)
    large = top_eigenpairs(Diagonal(spectrum), 3)
    assert torch.allclose(small.values, large.values, atol=1e-9)
    assert small.matvecs > large.matvecs


def test_pairs_of_a_compression_are_of_what_is_left() -> None:
    values = eigenvalues("indefinite")
    A = rotated(values)
    first = top_eigenpairs(A, 4)
    second = top_eigenpairs(A.deflate(first), 4)
    assert torch.allclose(second.values, values.flip(0)[4:8], atol=1e-9)
    assert (first.vectors.T @ second.vectors).abs().max() < 1e-10
    few = A.project_out(ColumnSpace(torch.eye(60, dtype=torch.float64)[:, :58]))
    assert top_eigenpairs(few, 10).values.shape == (2,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_was_removed_is_never_found_again(sign: int, dtype: torch.dtype) -> None:
    """Nor at the end of the rest that is nearer to 0, where a removed direction's 0 would lie."""
    rest = sign * torch.linspace(1, 2, 397, dtype=torch.float64)
    A = rotated(torch.cat([torch.tensor([9.0, 8.0, 7.0]).double(), rest]), dtype)
    B = A.deflate(top_eigenpairs(A, 3, tol=1e-12))
    pairs = top_eigenpairs(B, 3, "smallest" if sign > 0 else "largest")
    expected = rest[:3].sort(descending=True).values
    eps = torch.finfo(dtype).eps
    assert ((pairs.values - expected).abs() <= pairs.residuals + 100 * eps).all()
    assert (B.projector @ pairs.vectors).abs().max() < 100 * eps
    everything = top_eigenpairs(B, 397).values.double()
    assert (everything - rest.sort(descending=True).values).abs().max() < 100 * eps


def test_more_than_there_are_gives_all() -> None:
    pairs = top_eigenpairs(rotated(eigenvalues("multiplicities")), 100)
    assert (pairs.values.flip(0) - eigenvalues("multiplicities")).abs().max() < 1e-10
    assert pairs.miss_probability == 0


def test_running_out_of_products_is_an_error_with_the_pairs() -> None:
    A = Diagonal(torch.linspace(0, 1, 500, dtype=torch.float64))
    with pytest.raises(NotConverged, match="25 matvecs were not enough") as failure:
        top_eigenpairs(A, 10, max_matvecs=25)
    assert failure.value.pairs.values.shape == (10,)


def test_what_is_not_symmetric_or_not_the_same_twice_is_noticed() -> None:
    generator = torch.Generator().manual_seed(0)

    class Noisy(Diagonal):
        def _product(self, columns: torch.Tensor) -> torch.Tensor:
            noise = torch.randn(columns.shape, generator=generator, dtype=torch.float64)
            return super()._product(columns) + 1e-3 * noise

    with pytest.raises(NotConverged):
        top_eigenpairs(Noisy(torch.arange(200.0, dtype=torch.float64)), 3, max_matvecs=300)


def test_nothing_left_is_an_error() -> None:
    everything = MatrixOperator(torch.eye(3)).project_out(ColumnSpace(torch.eye(3)))
    with pytest.raises(ValueError, match="something left"):
        top_eigenpairs(everything, 1)


def test_bad_arguments() -> None:
    A = MatrixOperator(torch.eye(5))
    with pytest.raises(ValueError, match="k of at least 1, got 0"):
        top_eigenpairs(A, 0)
    with pytest.raises(ValueError, match="which to be one of"):
        top_eigenpairs(A, 1, "biggest")
    with pytest.raises(ValueError, match="tol above 0"):
        top_eigenpairs(A, 1, tol=0.0)
    with pytest.raises(ValueError, match=r"start columns \(5, b\)"):
        top_eigenpairs(A, 1, start=torch.ones(5))
    with pytest.raises(ValueError, match="max_subspace of at least 7"):
        top_eigenpairs(A, 2, max_subspace=3)
    with pytest.raises(FloatingPointError, match="NaN"):
        top_eigenpairs(Diagonal(torch.tensor([1.0, torch.nan])), 1)
    with pytest.raises(ValueError, match="k of at least 1"):
        subspace_iteration(A, 0)
    with pytest.raises(ValueError, match="iterations of at least 1"):
        subspace_iteration(A, 1, 0)


def test_saved_and_loaded(tmp_path) -> None:
    pairs = top_eigenpairs(rotated(eigenvalues("indefinite")), 3)
    pairs.save(tmp_path / "pairs")
    again = Eigenpairs.load(tmp_path / "pairs")
    assert torch.equal(again.values, pairs.values)
    assert torch.equal(again.vectors, pairs.vectors)
    assert (again.matvecs, again.miss_probability) == (pairs.matvecs, pairs.miss_probability)
