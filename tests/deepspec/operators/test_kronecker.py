"""Kronecker products, their sums and block-diagonals against dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import deepspec
from deepspec.operators import (
    BlockDiagonal,
    KroneckerBasis,
    KroneckerProduct,
    KroneckerSum,
    matrix,
)
from deepspec.operators.factors import MomentSum, ThinFactor, WholeFactor
from deepspec.operators.kronecker import top_products


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(size: int, seed: int) -> Tensor:
    M = normal(size, size, seed=seed)
    return M + M.T


def dense_eigenvalues(M: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(M).flip(0)


FACTORS = {
    "indefinite": (WholeFactor(symmetric(3, 1)), WholeFactor(symmetric(5, 2))),
    "thin right": (WholeFactor(symmetric(3, 1)), ThinFactor(normal(2, 5))),
    "thin left": (ThinFactor(normal(2, 4)), WholeFactor(symmetric(3, 2))),
    "more rows than columns": (ThinFactor(normal(5, 2)), WholeFactor(symmetric(2, 3))),
    "thin both": (ThinFactor(normal(2, 4)), ThinFactor(normal(3, 5, seed=5))),
    "one by one": (WholeFactor(symmetric(1, 1)), ThinFactor(normal(1, 3))),
}


@pytest.mark.parametrize("name", FACTORS)
def test_a_product_is_krons(name: str) -> None:
    left, right = FACTORS[name]
    K = KroneckerProduct(left, right)
    dense = torch.kron(left.dense(), right.dense())
    expected = dense_eigenvalues(dense)
    scale = float(expected.abs().max())

    assert float((K.to_dense() - dense).abs().max()) < 1e-13 * scale
    assert abs(K.trace() - float(dense.trace())) < 1e-12 * scale
    assert abs(K.inner(K) - float(dense.square().sum())) < 1e-12 * scale**2
    for k in (1, 2, 4, 7, K.size, None):
        found = K.eigenvalues(k)
        assert found.dtype == torch.float64
        assert float((found - expected[:k]).abs().max()) < 1e-12 * scale
    values, vectors = K.eigenpairs(K.size)
    assert float((dense @ vectors - vectors * values).abs().max()) < 1e-12 * scale
    assert float((vectors.T @ vectors - torch.eye(len(values))).abs().max()) < 1e-12


@pytest.mark.parametrize("name", FACTORS)
def test_factors_multiply_from_both_sides(name: str) -> None:
    for factor in FACTORS[name]:
        M, V = factor.dense(), normal(4, factor.size, 2)
        assert torch.allclose(factor.times(V), M @ V)
        assert torch.allclose(factor.leave(factor.enter(V.mT)), V.mT @ M)
        forms = factor.forms(V.mT)
        assert torch.allclose(forms, ((V.mT @ M) * V.mT).sum(-1))
        for other in (WholeFactor(symmetric(factor.size, 8)), ThinFactor(normal(2, factor.size))):
            expected = float((M * other.dense()).sum())
            assert abs(factor.inner(other) - expected) < 1e-12 * float(M.norm())


def test_a_factors_eigenvalues_come_with_or_without_vectors() -> None:
    for make in (lambda: WholeFactor(symmetric(4, 1)), lambda: ThinFactor(normal(2, 5))):
        alone, both = make(), make()
        values = both.eigenpairs[0]
        assert torch.equal(both.eigenvalues, values)
        assert float((alone.eigenvalues - values).abs().max()) < 1e-13 * float(values[0])


def test_a_sum_is_a_sum_of_krons() -> None:
    terms = [(symmetric(3, s), ThinFactor(normal(2, 4, seed=s))) for s in range(3)]
    K = KroneckerSum(terms)
    dense = sum(torch.kron(left, right.dense()) for left, right in terms)
    assert float((K.to_dense() - dense).abs().max()) < 1e-13 * float(dense.abs().max())
    other = KroneckerProduct(symmetric(3, 9), symmetric(4, 9))
    assert abs(K.inner(other) - float((dense * other.to_dense()).sum())) < 1e-10
    assert abs(K.trace() - float(dense.trace())) < 1e-11
    assert repr(K) == "<12 × 12 Kronecker sum of 3 terms 3 ⊗ 4, float64 on cpu>"


@pytest.mark.parametrize("signs", ["+", "-", "±", "0"])
def test_top_products_are_those_of_all(signs: str) -> None:
    shift = {"+": 5.0, "-": -5.0, "±": 0.0, "0": 0.0}[signs]
    left, right = normal(30) + shift, normal(20, seed=1) + abs(shift)
    if signs == "0":
        left, right = left.clamp_min(0), right.clamp_max(0)
    left, right = (x.sort(descending=True)[0] for x in (left, right))
    every = (left[:, None] * right).flatten().sort(descending=True)[0]
    for k in (1, 5, 50, 300, 600, 1000):
        values, rows, columns = top_products(left, right, k)
        assert torch.equal(values, every[:k])
        assert torch.equal(left[rows] * right[columns], values)
        assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == len(values)


def test_top_products_form_few() -> None:
    many = torch.arange(10_000, 0, -1, dtype=torch.float64)
    seen = []

    class Counting(torch.Tensor):
        def __mul__(self, other: Tensor) -> Tensor:
            seen.append(self.numel())
            return super().__mul__(other)

    values, _, _ = top_products(many.as_subclass(Counting), many, 100)
    assert float(values[0]) == 1e8
    assert sum(seen) < 1000


def test_a_diagonal_in_a_basis() -> None:
    left, right = (torch.linalg.qr(normal(size, 3, seed=size))[0] for size in (4, 5))
    d = normal(3, 3, seed=3)
    E = KroneckerBasis(left, right, d)
    basis = torch.kron(left, right)
    dense = basis @ torch.diag(d.flatten()) @ basis.T
    assert float((E.to_dense() - dense).abs().max()) < 1e-14
    for k in (2, 12, None):
        assert float((E.eigenvalues(k) - dense_eigenvalues(dense)[:k]).abs().max()) < 1e-13
    values, vectors = E.eigenpairs(5)
    assert float((dense @ vectors - vectors * values).abs().max()) < 1e-13
    assert abs(E.trace() - float(d.sum())) < 1e-13


def test_blocks_keep_to_themselves() -> None:
    first = KroneckerProduct(symmetric(2, 1), symmetric(3, 2))
    second = KroneckerBasis(torch.eye(2).double(), torch.eye(2).double(), normal(2, 2))
    B = BlockDiagonal([first, second, first])
    dense = torch.block_diag(first.to_dense(), second.to_dense(), first.to_dense())
    assert float((B.to_dense() - dense).abs().max()) < 1e-13
    expected = dense_eigenvalues(dense)
    for k in (1, 5, 16, None):
        assert float((B.eigenvalues(k) - expected[:k]).abs().max()) < 1e-12
    values, vectors = B.eigenpairs(7)
    assert float((values - expected[:7]).abs().max()) < 1e-12
    assert float((dense @ vectors - vectors * values).abs().max()) < 1e-12
    assert float((vectors.T @ vectors - torch.eye(7)).abs().max()) < 1e-12


def test_blocks_pass_on_plans() -> None:
    class Planned(deepspec.MatrixOperator):
        made: int = 0

        def prepare(self, matvecs: int) -> None:
            self.made = matvecs

        def plan(self) -> dict[str, str | int]:
            return {"made": self.made}

        def follow(self, plan: dict[str, str | int]) -> None:
            self.made = int(plan["made"])

    blocks = [Planned(torch.eye(2)), Planned(torch.eye(3))]
    B = BlockDiagonal(blocks)
    B.prepare(7)
    assert B.plan() == {"0. made": 7, "1. made": 7}
    B.follow({"0. made": 1, "1. made": 2})
    assert [block.made for block in blocks] == [1, 2]


def test_moments_of_batches_are_those_of_the_whole() -> None:
    rows = normal(7, 6)
    for batch, kind in ((7, WholeFactor), (2, WholeFactor), (5, WholeFactor)):
        moment = MomentSum(6)
        for part in rows.split(batch):
            moment.add(part)
        found = moment.factor(0.5)
        assert isinstance(found, kind)
        assert torch.allclose(found.dense(), rows.T @ rows / 2)
    few = MomentSum(6)
    few.add(rows[:2])
    few.add(rows[2:3])
    assert isinstance(few.factor(), ThinFactor)
    assert torch.allclose(few.factor(2.0).dense(), 2 * rows[:3].T @ rows[:3])


@pytest.mark.parametrize("place", [(0, 6), (6, 0), (5, 6), (2, 1)])
def test_an_asymmetry_is_found_in_any_block(
    place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "ROWS_AT_ONCE", 3)
    M = symmetric(7, 0)
    assert torch.equal(deepspec.MatrixOperator(M).to_dense(), M)
    M[place] += 1e-6
    with pytest.raises(ValueError, match="expected a symmetric matrix"):
        deepspec.MatrixOperator(M)


def test_bad_factors_and_blocks() -> None:
    eye = torch.eye(2)
    with pytest.raises(TypeError, match=r"at least one pair of matrices \(B, A\), got none"):
        KroneckerSum([])
    with pytest.raises(ValueError, match="expected a symmetric matrix"):
        KroneckerProduct(torch.ones(2, 2).triu(), eye)
    with pytest.raises(TypeError, match="a matrix as a torch tensor, got list"):
        KroneckerProduct([[1.0]], eye)
    with pytest.raises(ValueError, match="every A of one size, got 2 and 3"):
        KroneckerSum([(eye, eye), (eye, torch.eye(3))])
    with pytest.raises(ValueError, match=r"all matrices in torch\.float32 on cpu, got torch\.floa"):
        KroneckerProduct(eye, eye.double())
    with pytest.raises(ValueError, match="whole number ≥ 1, got 0"):
        KroneckerProduct(eye, eye).eigenvalues(0)
    with pytest.raises(ValueError, match="finite rows of a factor"):
        ThinFactor(torch.full((1, 2), torch.nan))
    with pytest.raises(ValueError, match="expected rows of which to take the second moment"):
        MomentSum(3).factor()
    with pytest.raises(ValueError, match=r"orthonormal left columns, got a Gram matrix 1\.4e\+00"):
        KroneckerBasis(2**0.5 * eye, eye, torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"values of shape \(2, 2\), one for each pair"):
        KroneckerBasis(eye, eye, torch.ones(2, 3))
    with pytest.raises(TypeError, match="at least one block, got none"):
        BlockDiagonal([])
    with pytest.raises(TypeError, match=r"an operator as a block, got Tensor; wrap a matrix"):
        BlockDiagonal([eye])
    with pytest.raises(ValueError, match="blocks of one dtype and device"):
        BlockDiagonal([deepspec.MatrixOperator(eye), deepspec.MatrixOperator(eye.double())])
    unknown = BlockDiagonal([deepspec.MatrixOperator(eye)])
    for asked in (unknown.eigenvalues, unknown.eigenpairs):
        with pytest.raises(TypeError, match="blocks that know their eigenvalues, got <2 × 2 mat"):
            asked(1)
