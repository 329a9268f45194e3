"""The empirical FIM and its four parts, each against the definition, entry by entry."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

from ccm import (
    CanonicalClassificationModel,
    class_structure,
    empirical_fim,
    fim_operator,
    fim_trace,
    symmetric_fim,
    symmetric_probabilities,
)


def problem(n: int, D: int, C: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unbalanced classes, some of them perhaps empty, and uneven probabilities."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D))
    y = rng.integers(0, C, n) if seed % 2 else rng.integers(0, max(1, C - 1), n)
    return X, y, rng.dirichlet(np.full(C, 0.5), size=n)


problems = st.builds(
    problem, st.integers(1, 12), st.integers(1, 4), st.integers(2, 4), st.integers(0, 1000)
)


def extended_gradients(X: np.ndarray, p: np.ndarray) -> np.ndarray:
    """g_{i,c'} = x_i ⊗ (p_i - e_c'), shape (n, C, DC)."""
    n, C = p.shape
    return np.array([[np.kron(X[i], p[i] - np.eye(C)[c]) for c in range(C)] for i in range(n)])


def parts_by_definition(X: np.ndarray, y: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    n, C = p.shape
    g, w = extended_gradients(X, p), p / n
    size = g.shape[2]
    parts = {k: np.zeros((size, size)) for k in ("between", "cross", "within", "own")}
    for c in range(C):
        members = np.flatnonzero(y == c)
        weight = w[members].sum(axis=0)
        means = np.zeros((C, size))
        for other in range(C):
            for i in members:
                means[other] += w[i, other] / weight[other] * g[i, other]
            for i in members:
                deviation = g[i, other] - means[other]
                parts["within"] += w[i, other] * np.outer(deviation, deviation)
        parts["own"] += weight[c] * np.outer(means[c], means[c])
        others = [other for other in range(C) if other != c]
        total = weight[others].sum()
        if total == 0:
            continue
        mean = sum(weight[other] / total * means[other] for other in others)
        parts["between"] += total * np.outer(mean, mean)
        for other in others:
            deviation = means[other] - mean
            parts["cross"] += weight[other] * np.outer(deviation, deviation)
    return parts


@settings(max_examples=25, deadline=None)
@given(problems)
def test_fim_by_definition(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    X, _, p = case
    n, C = p.shape
    expected = sum(
        np.kron(np.outer(x, x), np.diag(q) - np.outer(q, q)) for x, q in zip(X, p, strict=True)
    )
    np.testing.assert_allclose(empirical_fim(X, p), expected / n, atol=1e-12)
    operator = fim_operator(X, p)
    np.testing.assert_allclose(operator.to_dense(), expected / n, atol=1e-12)
    v = np.random.default_rng(0).standard_normal(operator.shape[0])
    np.testing.assert_allclose(operator @ v, expected @ v / n, atol=1e-12)
    np.testing.assert_allclose(operator.T @ v, operator @ v, atol=1e-14)
    assert fim_trace(X, p) == pytest.approx(np.trace(expected) / n, rel=1e-10)
    assert C * X.shape[1] == operator.shape[0]


@settings(max_examples=25, deadline=None)
@given(problems)
def test_parts_by_definition_and_their_sum(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    X, y, p = case
    structure = class_structure(X, y, p)
    expected = parts_by_definition(X, y, p)
    total = np.zeros_like(expected["own"])
    for part, reference in zip(structure.parts.values(), expected.values(), strict=True):
        dense = part.to_dense()
        np.testing.assert_allclose(dense, reference, atol=1e-12)
        assert np.linalg.eigvalsh((dense + dense.T) / 2).min() > -1e-12
        total += dense
    np.testing.assert_allclose(total, empirical_fim(X, p), atol=1e-12)


@pytest.mark.parametrize("snr", [8.0, 10.0, 14.0])
def test_nearly_certain_samples_lose_no_digit(snr: float) -> None:
    """U = Σ_{a<b} p_a p_b (e_a - e_b)(e_a - e_b)ᵀ subtracts nothing, however small it is."""
    model = CanonicalClassificationModel(6, 4, snr)
    X, y = model.sample(per_class=50, seed=0)
    p = model.bayes_probabilities(X)
    expected = np.zeros((24, 24))
    for a, b in itertools.combinations(range(4), 2):
        edge = np.eye(4)[a] - np.eye(4)[b]
        weighted = X * (p[:, a] * p[:, b] / len(X))[:, None]
        expected += np.kron(weighted.T @ X, np.outer(edge, edge))
    rounding = 1e-13 * np.abs(expected).max()
    found = empirical_fim(X, p)
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)
    np.testing.assert_allclose(fim_operator(X, p).to_dense(), expected, rtol=0, atol=rounding)
    parts = class_structure(X, y, p).parts.values()
    total = sum(part.to_dense() for part in parts)
    np.testing.assert_allclose(total, expected, rtol=0, atol=rounding)
    assert fim_trace(X, p) == pytest.approx(np.trace(expected), rel=1e-13)
    values = np.linalg.eigvalsh(found)
    assert values[0] > -1e-14 * values[-1]


def test_probabilities_that_underflow_are_right() -> None:
    X, y = np.eye(3), np.array([0, 1, 2])
    p = np.eye(3)  # every weight off the true class is exactly zero
    structure = class_structure(X, y, p)
    assert all(np.isfinite(part.to_dense()).all() for part in structure.parts.values())
    assert not structure.between_class.to_dense().any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_invariances(seed: int, random: Any) -> None:
    """Permuting classes, or rotating the noise coordinates, leaves the eigenvalues alone."""
    model = CanonicalClassificationModel(6, 3, 1.5)
    X, _ = model.sample(5, seed)
    values = np.linalg.eigvalsh(empirical_fim(X, model.bayes_probabilities(X)))
    order = [0, 1, 2]
    random.shuffle(order)
    permuted = X[:, [*order, 3, 4, 5]]
    rotation = scipy.stats.ortho_group.rvs(3, random_state=seed)
    rotated = np.concatenate([X[:, :3], X[:, 3:] @ rotation], axis=1)
    for Z in (permuted, rotated):
        found = np.linalg.eigvalsh(empirical_fim(Z, model.bayes_probabilities(Z)))
        np.testing.assert_allclose(found, values, atol=1e-12)


def test_many_samples_give_lemma_8_1() -> None:
    model = CanonicalClassificationModel(5, 3, 2.0)
    X, y = model.sample(per_class=50_000, seed=0)
    fim = empirical_fim(X, symmetric_probabilities(3, 0.3)[y])
    assert np.abs(fim - symmetric_fim(model, 0.3)).max() < 0.01


def test_tens_of_thousands_of_parameters() -> None:
    """D·C = 20,000 with no matrix of that size: the top eigenvalues by SciPy's Lanczos."""
    model = CanonicalClassificationModel(2000, 10, 6.0)
    X, y = model.sample(per_class=20, seed=0)
    G = fim_operator(X, symmetric_probabilities(10, 0.3)[y])
    start = np.random.default_rng(0).standard_normal(G.shape[0])  # 1 is in the kernel
    values, vectors = eigsh(G, k=3, v0=start, tol=1e-6)
    residual = np.linalg.norm(G @ vectors - vectors * values, axis=0)
    assert (residual < 1e-4 * values).all()


def test_bad_input() -> None:
    X, y, p = np.ones((2, 3)), np.array([0, 1]), np.full((2, 2), 0.5)
    for bad in (np.ones(3), np.ones((0, 3))):
        with pytest.raises(ValueError, match=r"X must be an \(n, D\) array"):
            empirical_fim(bad, p)
    with pytest.raises(ValueError, match="sample 1 holds NaN"):
        empirical_fim(np.array([[1.0], [np.nan]]), p)
    with pytest.raises(ValueError, match=r"probabilities must have shape \(2, C\)"):
        fim_operator(X, p[:1])
    with pytest.raises(ValueError, match=r"row 1 is .* take the softmax"):
        fim_trace(X, np.array([[0.5, 0.5], [0.5, 0.6]]))
    with pytest.raises(ValueError, match="row 0 is"):
        fim_trace(X, np.array([[-0.5, 1.5], [0.5, 0.5]]))
    with pytest.raises(TypeError, match="labels must be integers"):
        class_structure(X, np.array([0.0, 1.0]), p)
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\)"):
        class_structure(X, y[:1], p)
    with pytest.raises(ValueError, match="from 0 to 1 for 2 classes, but sample 1 has 2"):
        class_structure(X, np.array([0, 2]), p)
