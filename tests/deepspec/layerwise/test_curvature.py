"""KFAC, CFAC, EKFAC and KFOC against dense matrices, by definition, in float64."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from deepspec.layerwise import by_class, class_spectrum, sides
from deepspec.layerwise.by_class import cfac
from deepspec.layerwise.class_spectrum import ritz_pairs
from deepspec.layerwise.nearest_product import RearrangedSquare, kfoc
from deepspec.layerwise.one_product import diagonal_of_curvature, ekfac, kfac
from deepspec.layerwise.records import Shared
from deepspec.operators.factors import ThinFactor
from tests.deepspec.layerwise.planted import PLANTED, Planted

CASES = [
    pytest.param(planted, shared, bias, id=f"{name}-{shared}-{'bias' if bias else 'weight'}")
    for name, planted in PLANTED.items()
    for shared in ("expand", "reduce")
    for bias in (False, True)
    if planted.positions > 1 or shared == "expand"
]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> bool:
    return float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def descending(matrix: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(matrix).flip(0)


def dense_cfac(planted: Planted, shared: Shared, bias: bool) -> Tensor:
    labels = torch.tensor(planted.labels)
    terms = []
    for c in range(planted.classes):
        members = labels == c
        if members.any():
            D, H = planted.moments(shared, bias, members)
            share = float(members.double().mean())
            # (n_c/n) Δ_c ⊗ H_c, each a mean over the class.
            terms.append(share * torch.kron(D / share, H / share))
    return sum(terms, torch.zeros(()))


def rearranged(G: Tensor, o: int, i: int) -> Tensor:
    """R with ⟨B, RA⟩ = ⟨G, B ⊗ A⟩: (out² × in²)."""
    return G.view(o, i, o, i).permute(0, 2, 1, 3).reshape(o * o, i * i)


@pytest.mark.parametrize(("planted", "shared", "bias"), CASES)
def test_kfac_and_cfac_by_definition(planted: Planted, shared: Shared, bias: bool) -> None:
    D, H = planted.moments(shared, bias)
    K = kfac(planted.batches, shared, bias=bias)
    assert close(K.to_dense(), torch.kron(D, H))
    assert close(K.eigenvalues(), descending(torch.kron(D, H)))

    expected = dense_cfac(planted, shared, bias)
    F = cfac(planted.batches, shared, bias=bias)
    assert close(F.to_dense(), expected)
    assert close(F.eigenvalues(), descending(expected))
    assert close(F.eigenvalues(5), descending(expected)[:5])
    assert abs(F.trace() - float(expected.trace())) < 1e-10 * float(expected.trace())
    # Σ (n_c/n) Δ_c = Δ, and Σ (n_c/n) H_c = H.
    shares = torch.bincount(torch.tensor(planted.labels)).double() / len(planted.labels)
    shares = shares[shares > 0]
    assert close(sum(left.dense() for left, _ in F.terms), D)
    weighted = zip(shares, F.terms, strict=True)
    assert close(sum(share * right.dense() for share, (_, right) in weighted), H)


@pytest.mark.parametrize(("planted", "shared", "bias"), CASES)
def test_ekfac_is_the_diagonal_of_g(planted: Planted, shared: Shared, bias: bool) -> None:
    G = planted.curvature(bias)
    E = ekfac(planted.batches, shared, bias=bias)

    basis = torch.kron(E.left, E.right)
    diagonal = (basis * (G @ basis)).sum(0)
    assert close(E.values.flatten(), diagonal)
    assert close(E.to_dense(), basis @ torch.diag(diagonal) @ basis.T)
    # The basis holds every direction that any gradient has: the trace is that of G^l.
    assert abs(E.trace() - float(G.trace())) < 1e-10 * float(G.trace())
    # Nothing else that is diagonal there is nearer.
    error = float((G - E.to_dense()).norm())
    assert error <= float((G - kfac(planted.batches, shared, bias=bias).to_dense()).norm())


@pytest.mark.parametrize(("planted", "shared", "bias"), CASES)
def test_kfoc_is_the_nearest_product(planted: Planted, shared: Shared, bias: bool) -> None:
    G = planted.curvature(bias)
    o, i = planted.outputs, planted.inputs + bias
    left, singular, right = torch.linalg.svd(rearranged(G, o, i))
    best = float(singular[0]) * torch.kron(left[:, 0].reshape(o, o), right[0].reshape(i, i))

    K = kfoc(planted.batches, shared, bias=bias, tolerance=1e-12)

    assert close(K.to_dense(), best)
    assert abs(K.inner(K) ** 0.5 - float(singular[0])) < 1e-10 * float(singular[0])
    assert float(K.eigenvalues()[-1]) > -1e-12 * float(K.eigenvalues(1)[0])
    expected = float(G.square().sum() - singular[0].square())
    assert abs(float((G - K.to_dense()).square().sum()) - expected) < 1e-10 * float(G.norm() ** 2)


@pytest.mark.parametrize("name", ["vectors", "positions"])
def test_the_rearrangement_is_one(name: str) -> None:
    planted = PLANTED[name]
    G = planted.curvature(False)
    R = rearranged(G, planted.outputs, planted.inputs)
    square = RearrangedSquare(planted.batches, kfac(planted.batches), bias=False)
    expected = R @ R.T if square.on_errors else R.T @ R
    assert close(square.to_dense(), expected)
    assert square.on_errors == (planted.outputs < planted.inputs)
    assert repr(square).startswith("<9 × 9 square of the rearranged curvature")


def test_one_sample_a_class_makes_cfac_exact() -> None:
    planted = Planted((2, 0, 1), 3, 1, 4, 3, 2)
    for bias in (False, True):
        assert close(cfac(planted.batches, bias=bias).to_dense(), planted.curvature(bias))


def test_one_sample_makes_everything_exact() -> None:
    planted = Planted((0,), 2, 1, 3, 4)
    G = planted.curvature(True)
    for found in (kfac, cfac, ekfac, kfoc):
        assert close(found(planted.batches, bias=True).to_dense(), G)


def test_traces_meet_where_norms_are_uncorrelated() -> None:
    # tr KFAC = tr H · tr Δ; with inputs of one length that is tr G^l.
    class OneLength(Planted):
        def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            h, *rest = super().tensors()
            return (h / h.norm(dim=-1, keepdim=True), *rest)

    planted = OneLength((0, 0, 1, 2, 2, 2), 3, 1, 4, 3)
    trace = float(planted.curvature(True).trace())
    for found in (kfac, cfac, ekfac):
        assert abs(found(planted.batches, bias=True).trace() - trace) < 1e-12 * trace


def test_factors_of_few_samples_are_held_by_rows() -> None:
    K = kfac(PLANTED["few samples"].batches)
    assert isinstance(K.right, ThinFactor)
    assert K.right.rows.shape == (3, 11)
    F = cfac(PLANTED["few samples"].batches)
    assert [isinstance(right, ThinFactor) for _, right in F.terms] == [True, True]


def test_cfac_of_other_groups() -> None:
    planted = PLANTED["vectors"]
    together = cfac(planted.batches, labels=torch.zeros(8, dtype=torch.long))
    assert close(together.to_dense(), kfac(planted.batches).to_dense())
    alone = cfac(planted.batches, labels=torch.arange(8))
    assert close(alone.to_dense(), planted.curvature(False))


def test_cfac_by_lanczos(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = PLANTED["few samples"]
    expected = descending(dense_cfac(planted, "expand", True))
    monkeypatch.setattr(by_class, "DENSE", 10)
    F = cfac(planted.batches, bias=True, seed=3)
    values, vectors = F.eigenpairs(6)
    assert close(values, expected[:6], 1e-9)
    assert close(F.to_dense() @ vectors, vectors * values, 1e-5)
    assert torch.equal(F.eigenvalues(4), values[:4])


@pytest.mark.parametrize("name", PLANTED)
def test_cfac_of_long_vectors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = PLANTED[name]
    dense = dense_cfac(planted, "expand", True)
    expected = descending(dense)
    monkeypatch.setattr(by_class, "DENSE", 1)
    monkeypatch.setattr(by_class, "SEARCH_BYTES", 0)
    F = cfac(planted.batches, bias=True)

    # The span of all the classes' eigenvectors is everything.
    values, vectors = F.eigenpairs(5)
    assert close(values, expected[:5])
    assert close(dense @ vectors, vectors * values, 1e-9)
    assert close(vectors.T @ vectors, torch.eye(len(values)).double())
    assert torch.equal(F.eigenvalues(3), values[:3])


def test_a_span_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = Planted(tuple(i % 4 for i in range(32)), 4, 1, 12, 10, 8)
    expected = descending(dense_cfac(planted, "expand", False))[:3]
    terms = cfac(planted.batches).terms
    errors = []
    for size in (4, 16, 64):
        monkeypatch.setattr(class_spectrum, "SMALLEST", size)
        monkeypatch.setattr(class_spectrum, "LARGEST", size)
        found = ritz_pairs(terms, 1 if size == 4 else 3)
        gaps = expected[: len(found.values)] - found.values
        assert float(gaps.min()) > -1e-10 * float(expected[0])  # from below
        assert found.change == math.inf  # nothing to compare it with
        errors.append(float(gaps[0] / expected[0]))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3
    monkeypatch.setattr(class_spectrum, "SMALLEST", 4)
    monkeypatch.setattr(class_spectrum, "LARGEST", 512)
    found = ritz_pairs(terms, 3)
    assert 0 < found.change < class_spectrum.TOLERANCE
    assert close(found.values, expected, 1e-3)
    assert len(found.rows) < 480


def test_gradients_are_formed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = PLANTED["positions"]
    whole = ekfac(planted.batches), kfoc(planted.batches)
    monkeypatch.setattr(sides, "NUMBERS_AT_ONCE", 1)
    few = ekfac(planted.batches), kfoc(planted.batches)
    for one, other in zip(whole, few, strict=True):
        assert close(one.to_dense(), other.to_dense())


def test_batches_may_be_cut_anyhow() -> None:
    vectors = PLANTED["positions"]
    cut = [Planted(**{**vars(vectors), "batch": b}) for b in (1, 2, 7)]
    for found in (kfac, cfac, ekfac, kfoc):
        for one, other in pairwise(found(p.batches).to_dense() for p in cut):
            assert close(one, other)


def test_the_diagonal_in_any_basis() -> None:
    planted = PLANTED["vectors"]
    eye = torch.eye(4, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    found = diagonal_of_curvature(planted.batches, *eye, bias=False)
    assert close(found.flatten(), planted.curvature(False).diagonal())


def test_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (kfac, cfac, ekfac, kfoc):
        with pytest.raises(ValueError, match="at least one batch of inputs and errors, got none"):
            found(lambda: iter(()))
    planted = PLANTED["vectors"]
    F = cfac(planted.batches)
    for module in (sides, by_class):
        monkeypatch.setattr(module, "free_memory", lambda device: 100)
    with pytest.raises(MemoryError, match=r"1 pairs of factors of 4 and 4 rows.*a width of 2 wo"):
        kfac(planted.batches)
    with pytest.raises(MemoryError, match=r"3 pairs of factors.*a width of 1 would fit"):
        cfac(planted.batches)
    with pytest.raises(MemoryError, match=r"all 12 eigenvalues of CFAC.*ask for the k largest"):
        F.eigenvalues()
