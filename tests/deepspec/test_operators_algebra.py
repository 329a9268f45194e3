"""The algebra of operators against dense matrices, and against each identity it promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepspec.operators.combination import LinearCombination
from deepspec.operators.compression import Compression
from deepspec.operators.matrix import MatrixOperator
from deepspec.operators.orthonormal import orthonormal_basis
from deepspec.operators.projectors import ColumnSpace, Projector, SumOfSpaces, range_basis

P = 12


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(seed: int = 0, size: int = P) -> MatrixOperator:
    square = normal(size, size, seed=seed)
    return MatrixOperator(square + square.T)


def off(columns: torch.Tensor) -> torch.Tensor:
    """I − the projector onto the columns' span, by the pseudo-inverse."""
    return torch.eye(len(columns), dtype=torch.float64) - columns @ torch.linalg.pinv(columns)


class Opaque(Projector):
    """A projector known by its products only."""

    def __init__(self, columns: torch.Tensor) -> None:
        self.dense = torch.eye(len(columns), dtype=columns.dtype) - off(columns)
        self.known = int(torch.linalg.matrix_rank(columns))

    @property
    def rank(self) -> int:
        return self.known

    @property
    def size(self) -> int:
        return len(self.dense)

    @property
    def dtype(self) -> torch.dtype:
        return self.dense.dtype

    @property
    def device(self) -> torch.device:
        return self.dense.device

    def _product(self, columns: torch.Tensor) -> torch.Tensor:
        return self.dense @ columns


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_combinations_are_those_of_the_matrices(a: float, b: float, seed: int) -> None:
    A, B = matrix(seed), matrix(seed + 100)
    v, V = normal(P, seed=seed), normal(P, 3, seed=seed)
    combined = a * A - (B * b + A) / 2 + (-B)
    dense = a * A.matrix - (B.matrix * b + A.matrix) / 2 - B.matrix
    assert torch.allclose(combined @ v, dense @ v, atol=1e-12)
    assert torch.allclose(combined @ V, dense @ V, atol=1e-12)
    assert torch.allclose(combined.to_dense(), dense, atol=1e-12)
    assert abs(float(v @ (combined @ V[:, 0]) - (combined @ v) @ V[:, 0])) < 1e-10


def test_scipy_sees_the_same_matrix() -> None:
    A = matrix()
    v = np.arange(P, dtype=float)
    assert np.allclose(A.to_scipy() @ v, A.matrix.numpy() @ v)
    assert np.allclose(A.to_scipy() @ np.eye(P), A.matrix.numpy())


def test_what_comes_in_is_not_changed() -> None:
    V = normal(P, 2)
    before = V.clone()
    (2 * matrix() - matrix(1)).project_out(ColumnSpace(V)) @ V
    assert torch.equal(V, before)


@pytest.mark.parametrize("space", [ColumnSpace, Opaque])
@pytest.mark.parametrize("columns", [normal(P, 3), torch.cat([normal(P, 2), normal(P, 2)], dim=1)])
def test_a_knockout_is_the_papers(space: type, columns: torch.Tensor) -> None:
    A = matrix()
    compressed = A.project_out(space(columns))
    dense = off(columns) @ A.matrix @ off(columns)
    assert torch.allclose(compressed.to_dense(), dense, atol=1e-10)
    assert compressed.num_removed == int(torch.linalg.matrix_rank(columns))
    kept = compressed.restrict(normal(P, 4))
    assert torch.allclose(kept, off(columns) @ normal(P, 4), atol=1e-12)
    assert torch.allclose(compressed.restrict(normal(P)), off(columns) @ normal(P), atol=1e-12)


NESTED = {
    "orthogonal": (torch.eye(P).double()[:, :3], torch.eye(P).double()[:, 5:7], 5),
    "equal": (normal(P, 3), normal(P, 3) @ normal(3, 3, seed=4), 3),
    "one inside": (normal(P, 4), normal(P, 4)[:, 1:3], 4),
    "one dimension shared": (
        normal(P, 3),
        torch.cat([normal(P, 3)[:, :1], normal(P, 2, seed=9)], dim=1),
        5,
    ),
    "oblique": (normal(P, 3), normal(P, 3) + 0.1 * normal(P, 3, seed=9), 6),
    "all": (normal(P, 8), normal(P, 9, seed=1), P),
    "nothing more": (normal(P, 3), torch.zeros(P, 2, dtype=torch.float64), 3),
}


@pytest.mark.parametrize("first", [ColumnSpace, Opaque])
@pytest.mark.parametrize("second", [ColumnSpace, Opaque])
@pytest.mark.parametrize("name", NESTED)
def test_what_was_taken_away_stays_away(name: str, first: type, second: type) -> None:
    one, two, rank = NESTED[name]
    A = matrix()
    nested = A.project_out(first(one)).project_out(second(two))
    both = torch.cat([one, two], dim=1)
    assert nested.num_removed == rank
    assert torch.allclose(nested.to_dense(), off(both) @ A.matrix @ off(both), atol=1e-9)
    kept = nested.restrict(normal(P, 3))
    assert float((one.T @ kept).abs().max()) < 1e-9
    assert float((two.T @ kept).abs().max()) < 1e-9
    assert torch.allclose(nested.restrict(kept), kept, atol=1e-12)
    if name in {"orthogonal", "equal", "one inside", "nothing more"}:  # they commute
        literal = off(two) @ off(one) @ A.matrix @ off(one) @ off(two)
        assert torch.allclose(nested.to_dense(), literal, atol=1e-9)


def test_three_times_nested() -> None:
    A, axes = matrix(), torch.eye(P, dtype=torch.float64)
    thrice = A.project_out(ColumnSpace(axes[:, :2]))
    thrice = thrice.project_out(ColumnSpace(axes[:, 1:4])).project_out(ColumnSpace(axes[:, 3:5]))
    assert thrice.num_removed == 5
    assert torch.allclose(thrice.to_dense()[5:, 5:], A.matrix[5:, 5:])
    assert float(thrice.to_dense()[:5].abs().max()) < 1e-14


def test_deflation_takes_off_exact_eigenpairs() -> None:
    A = matrix()
    values, vectors = torch.linalg.eigh(A.matrix)

    class Pairs:
        pass

    pairs = Pairs()
    pairs.vectors = vectors[:, -3:]
    rest = A.matrix - (vectors[:, -3:] * values[-3:]) @ vectors[:, -3:].T
    assert torch.allclose(A.deflate(pairs).to_dense(), rest, atol=1e-12)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_sums_of_spaces(one: int, two: int, seed: int) -> None:
    first, second = normal(P, one, seed=seed), normal(P, two, seed=seed + 50)
    joined = SumOfSpaces(ColumnSpace(first), ColumnSpace(second))
    assert joined.rank == one + two
    dense = joined.to_dense()
    assert torch.allclose(dense @ dense, dense, atol=1e-10)
    assert torch.allclose(dense, dense.T, atol=1e-10)
    assert torch.allclose(dense @ first, first, atol=1e-9)
    assert torch.allclose(dense @ second, second, atol=1e-9)
    assert (joined.size, joined.dtype, joined.device.type) == (P, torch.float64, "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_orthonormal_basis_has_the_rank_of_the_columns(dtype: torch.dtype) -> None:
    columns = torch.cat([normal(2000, 3), normal(2000, 3) @ normal(3, 2, seed=2)], dim=1).to(dtype)
    basis = orthonormal_basis(columns)
    assert basis.shape == (2000, 3)
    eye = torch.eye(3, dtype=dtype)
    assert (basis.T @ basis - eye).abs().max() < 100 * torch.finfo(dtype).eps
    faint = normal(2000, 2).to(dtype) * torch.tensor([1.0, 1e-3], dtype=dtype)
    assert orthonormal_basis(faint).shape[1] == 2
    assert orthonormal_basis(torch.zeros(5, 2)).shape == (5, 0)
    assert range_basis(Opaque(normal(50, 3) @ normal(3, 5, seed=1))).shape == (50, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lengths", [(1, 1, 1), (1, 1, 300), (1, 1, 1e5), (1e30, 1e30, 1e30)])
def test_an_orthonormal_basis_is_one_however_long_the_columns(
    dtype: torch.dtype, lengths: tuple[float, ...]
) -> None:
    """By the nearest basis, and beyond a condition number of 1,000 by singular values."""
    eps = torch.finfo(dtype).eps
    short = normal(70_000, 3).to(dtype)
    columns = short * torch.tensor(lengths, dtype=dtype)
    basis = orthonormal_basis(columns, relative_tolerance=0.0).double()
    assert basis.shape == (70_000, 3)
    assert (basis.T @ basis - torch.eye(3).double()).abs().max() < 100 * eps
    unit = short.double() / short.double().norm(dim=0)
    assert (unit - basis @ (basis.T @ unit)).abs().max() < 100 * eps


def test_an_orthonormal_basis_where_squares_overflow() -> None:
    basis = orthonormal_basis(1e200 * normal(50, 3))
    assert (basis.T @ basis - torch.eye(3).double()).abs().max() < 1e-14


def test_an_orthonormal_basis_of_one_is_itself() -> None:
    basis = torch.linalg.qr(normal(200, 4)).Q
    assert (orthonormal_basis(basis) - basis).abs().max() < 1e-14


def test_fingerprints_tell_operators_apart() -> None:
    A, B = matrix(), matrix(1)
    space, other = ColumnSpace(normal(P, 2)), ColumnSpace(normal(P, 2, seed=3))
    different = [
        A,
        B,
        A + B,
        A - B,
        2 * A,
        A.project_out(space),
        A.project_out(other),
        A.project_out(space).project_out(other),
        Opaque(normal(P, 2)),
    ]
    prints = [str(sorted(one.fingerprint().items())) for one in different]
    assert len(set(prints)) == len(prints)
    assert (A + B).fingerprint() == (matrix() + matrix(1)).fingerprint()


def test_bad_arguments() -> None:
    A = matrix()
    with pytest.raises(ValueError, match="square matrix"):
        MatrixOperator(torch.ones(2, 3))
    with pytest.raises(ValueError, match="symmetric"):
        MatrixOperator(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(TypeError, match="expected an operator, got Tensor"):
        A + torch.eye(P)
    with pytest.raises(ValueError, match="one size, dtype and device"):
        A + matrix(size=3)
    with pytest.raises(ValueError, match="one size, dtype and device"):
        LinearCombination((1.0, A), (1.0, MatrixOperator(torch.eye(P))))
    with pytest.raises(ValueError, match=r"shape \(p, k\)"):
        ColumnSpace(torch.ones(3))
    with pytest.raises(ValueError, match="projector of size 12, got 5"):
        Compression(A, ColumnSpace(torch.ones(5, 1)))
    with pytest.raises(TypeError, match="expected a torch tensor"):
        A @ np.ones(P)
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        A @ torch.ones(5, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"got torch\.float32"):
        A @ torch.ones(P)
    assert (A @ torch.ones(P, 0, dtype=torch.float64)).shape == (P, 0)


def test_a_multiple_of_a_compression_is_a_compression() -> None:
    A = MatrixOperator(torch.diag(torch.tensor([9.0, 2.0, 1.0], dtype=torch.float64)))
    B = A.project_out(ColumnSpace(torch.eye(3, dtype=torch.float64)[:, :1]))
    for multiple, factor in ((2 * B, 2.0), (B / 4, 0.25), (-B, -1.0)):
        assert isinstance(multiple, Compression)
        assert multiple.num_removed == 1
        assert torch.equal(multiple.to_dense(), factor * B.to_dense())
