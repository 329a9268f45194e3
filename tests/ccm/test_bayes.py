"""Level 3: the exact spectrum against dense quadrature, reference values and Monte Carlo."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccm import CanonicalClassificationModel, bayes_fim, bayes_spectrum, symmetric_spectrum

# Reference values of the signal block, absolute accuracy 1e-8: (C, t, levels, bulk).
REFERENCE = [
    (
        3,
        1.0,
        [(0.35785914, 2), (0.305480894, 1), (0.207182649, 2), (0.183101617, 1)],
        0.24056289994731422,
    ),
    (
        5,
        2.0,
        [(0.202970066, 4), (0.115795632, 6), (0.061732785, 4), (0.058093621, 5), (0.038037042, 1)],
        0.07505480456778667,
    ),
    (
        10,
        2.0,
        [
            (0.14071439, 9),
            (0.064190381, 36),
            (0.045769981, 9),
            (0.042289856, 35),
            (0.027752371, 1),
        ],
        0.049653303203066754,
    ),
]


@pytest.mark.parametrize(("C", "t", "levels", "bulk"), REFERENCE)
def test_reference_values(C: int, t: float, levels: list[tuple[float, int]], bulk: float) -> None:
    spectrum = bayes_spectrum(CanonicalClassificationModel(C + 2, C, t))
    found = [lv for lv in spectrum.levels if lv.label not in {"bulk", "null"}]
    assert [lv.multiplicity for lv in found] == [count for _, count in levels]
    np.testing.assert_allclose(
        [lv.value for lv in found], [value for value, _ in levels], rtol=0, atol=1e-8
    )
    assert spectrum.level("bulk").value == pytest.approx(bulk, abs=1e-8)


def fim_by_quadrature(C: int, t: float, points: int) -> np.ndarray:
    """E x xᵀ ⊗ (diag p - p pᵀ) under the mixture: Gauss–Hermite on a product grid."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(points)
    weights = weights / weights.sum()
    fim = np.zeros((C * C, C * C))
    for c in range(C):
        for index in itertools.product(range(points), repeat=C):
            x = nodes[list(index)] + t * (np.arange(C) == c)
            p = np.exp(t * (x - x.max()))
            p /= p.sum()
            U = np.diag(p) - np.outer(p, p)
            fim += weights[list(index)].prod() / C * np.kron(np.outer(x, x), U)
    return fim


@pytest.mark.parametrize(("C", "t", "points"), [(2, 0.7, 40), (2, 0.0, 4), (3, 0.5, 16)])
def test_dense_by_definition(C: int, t: float, points: int) -> None:
    model = CanonicalClassificationModel(C, C, t)
    np.testing.assert_allclose(bayes_fim(model), fim_by_quadrature(C, t, points), atol=1e-9)


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2), st.floats(0, 8))
def test_the_spectrum_is_the_dense_matrix_s(C: int, extra: int, t: float) -> None:
    model = CanonicalClassificationModel(C + extra, C, t)
    fim = bayes_fim(model)
    np.testing.assert_allclose(fim, fim.T, atol=1e-13)
    spectrum = bayes_spectrum(model)
    assert spectrum.size == model.size
    assert spectrum.trace == pytest.approx(np.trace(fim), rel=1e-10)
    dense = np.linalg.eigvalsh(fim)[::-1]
    np.testing.assert_allclose(spectrum.eigenvalues, dense, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 100), st.floats(0, 8))
def test_multiplicities_and_trace(C: int, t: float) -> None:
    """tr F = E |x|² (1 - |p|²) on the signal, and E p_a² from the same integrals as α."""
    model = CanonicalClassificationModel(C + 1, C, t)
    spectrum = bayes_spectrum(model)
    assert spectrum.size == model.size
    assert (spectrum.eigenvalues > -1e-12).all()
    assert spectrum.level("outliers").multiplicity == C - 1
    bulk = spectrum.level("bulk").value
    assert bulk == pytest.approx(model.bayes_alpha() / (C - 1), rel=1e-12)


@pytest.mark.parametrize(("C", "t"), [(2, 1.0), (4, 2.0), (7, 4.0)])
def test_trace_against_samples(C: int, t: float) -> None:
    model = CanonicalClassificationModel(C + 1, C, t)
    X, _ = model.sample(per_class=100_000 // C, rng=5)
    p = model.bayes_probabilities(X)
    traces = (X**2).sum(axis=1) * (1 - (p**2).sum(axis=1))
    error = 5 * traces.std() / np.sqrt(len(traces))
    assert abs(traces.mean() - bayes_spectrum(model).trace) < error


@pytest.mark.parametrize(("C", "t"), [(2, 1.5), (3, 1.0), (5, 3.0), (6, 0.0)])
def test_every_level_against_samples(C: int, t: float) -> None:
    """Each eigenvalue is the mean over samples of vᵀ (x xᵀ ⊗ U) v for one eigenvector v."""
    model = CanonicalClassificationModel(C + 1, C, t)
    X, _ = model.sample(per_class=60_000 // C, rng=8)
    p = model.bayes_probabilities(X)
    fim = bayes_fim(model)
    values, vectors = np.linalg.eigh(fim)
    np.testing.assert_allclose(values[::-1], bayes_spectrum(model).eigenvalues, atol=1e-12)
    for value, vector in zip(values, vectors.T, strict=True):
        u = X @ vector.reshape(model.dim, C)
        forms = (p * u**2).sum(axis=1) - (p * u).sum(axis=1) ** 2
        assert abs(forms.mean() - value) <= 5 * forms.std() / np.sqrt(len(forms)) + 1e-12


@pytest.mark.parametrize("C", [2, 3, 4, 50])
def test_without_signal_all_eigenvalues_are_equal(C: int) -> None:
    values = bayes_spectrum(CanonicalClassificationModel(C + 1, C, 0.0)).eigenvalues
    np.testing.assert_allclose(values[: (C + 1) * (C - 1)], 1 / C, atol=1e-12)
    assert not values[(C + 1) * (C - 1) :].any()


@pytest.mark.parametrize("C", [2, 3, 7])
def test_without_signal_levels_1_and_3_agree(C: int) -> None:
    """At t = 0 the Bayes probabilities are symmetric, with α = 1 - 1/C."""
    model = CanonicalClassificationModel(C + 2, C, 0.0)
    level_1, level_3 = symmetric_spectrum(model, 1 - 1 / C), bayes_spectrum(model)
    np.testing.assert_allclose(level_3.eigenvalues, level_1.eigenvalues, atol=1e-12)
    assert level_3.trace == pytest.approx(level_1.trace)


def test_the_largest_case_takes_little_time() -> None:
    start = time.process_time()
    spectrum = bayes_spectrum(CanonicalClassificationModel(200, 100, 7.9))
    assert time.process_time() - start < 2
    assert spectrum.size == 20_000


def test_large_snr_is_refused() -> None:
    with pytest.raises(ValueError, match="SNR from 0 to 64"):
        bayes_spectrum(CanonicalClassificationModel(3, 3, 65.0))
