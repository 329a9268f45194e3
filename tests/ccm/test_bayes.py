"""Level 3: the exact spectrum against dense quadrature, reference values and Monte Carlo."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccm import CanonicalClassificationModel, bayes_fim, bayes_spectrum, symmetric_spectrum
from ccm.bayes import SignalBlock

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
    np.testing.assert_allclose(spectrum.eigenvalues, dense, rtol=0, atol=1e-12 * dense[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 100), st.floats(0, 8))
def test_multiplicities_and_trace(C: int, t: float) -> None:
    """tr F = E |x|² (1 - |p|²) on the signal, and E p_a² from the same integrals as α."""
    model = CanonicalClassificationModel(C + 1, C, t)
    spectrum = bayes_spectrum(model)
    assert spectrum.size == model.size
    assert (spectrum.eigenvalues >= 0).all()
    assert spectrum.level("outliers").multiplicity == C - 1
    bulk = spectrum.level("bulk").value
    assert bulk == pytest.approx(model.bayes_alpha() / (C - 1), rel=1e-12)


@pytest.mark.parametrize("t", [0.5, 4.0, 8.0, 10.0, 14.0, 20.0, 40.0])
def test_two_classes_by_one_integral_to_relative_accuracy(t: float) -> None:
    """C = 2: U = p₁p₂ [[1, -1], [-1, 1]] depends on u = (x_1 - x_2)/√2 alone, x_1 + x_2 does not.

    So the eigenvalues are 2 E[u² p₁p₂] and (2 + t²) E[p₁p₂], of positive integrands, however
    small: at t = 10 the larger is 6e-11, at t = 40 it is 3e-173.
    """
    step = min(0.01, 0.1 / t)
    u = np.arange(-12.0, t / np.sqrt(2) + 12, step)
    odds = np.exp(-np.minimum(np.abs(t * np.sqrt(2) * u), 700))
    weight = step * odds / (1 + odds) ** 2 / np.sqrt(2 * np.pi)
    weight *= np.exp(-((u - t / np.sqrt(2)) ** 2) / 2)
    expected = sorted([2 * (u**2 * weight).sum(), (2 + t**2) * weight.sum()], reverse=True)
    levels = bayes_spectrum(CanonicalClassificationModel(2, 2, t)).levels
    np.testing.assert_allclose([lv.value for lv in levels[:2]], expected, rtol=1e-9)


def test_the_trace_of_three_classes_at_large_snr_by_quadrature() -> None:
    """tr F = E |x|² Σ_a p_a (1 - p_a) over one class, by a sum over a grid; 4e-10 at t = 10."""
    t, step = 10.0, 0.125
    grid = np.arange(-6.0, t + 6, step)
    x = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3)
    odds = np.exp(t * (x - x.max(axis=1, keepdims=True)))
    p = odds / odds.sum(axis=1, keepdims=True)
    pairs = 2 * (p[:, 0] * p[:, 1] + p[:, 0] * p[:, 2] + p[:, 1] * p[:, 2])
    density = np.exp(-((x - [t, 0, 0]) ** 2).sum(axis=1) / 2) * (step / np.sqrt(2 * np.pi)) ** 3
    expected = (density * (x**2).sum(axis=1) * pairs).sum()
    spectrum = bayes_spectrum(CanonicalClassificationModel(3, 3, t))
    assert spectrum.trace == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("C", [2, 3, 4, 10, 100])
@pytest.mark.parametrize("t", [10.0, 20.0, 40.0])
def test_large_snr_leaves_no_noise(C: int, t: float) -> None:
    """Every eigenvalue is positive, and their sum is the trace of the entries."""
    spectrum = bayes_spectrum(CanonicalClassificationModel(C + 1, C, t))
    block = SignalBlock(C, t)
    signal = C * block.entry(0, 0, 0, 0) + C * (C - 1) * block.entry(1, 0, 1, 0)
    bulk = spectrum.level("bulk").value * (C - 1)
    assert spectrum.trace == pytest.approx(signal + bulk, rel=1e-9, abs=0)
    assert (spectrum.eigenvalues[: (C + 1) * (C - 1)] > 0).all()
    assert spectrum.levels[0].label == "outliers"


@pytest.mark.parametrize(("C", "t"), [(2, 1.0), (4, 2.0), (7, 4.0)])
def test_trace_against_samples(C: int, t: float) -> None:
    model = CanonicalClassificationModel(C + 1, C, t)
    X, _ = model.sample(per_class=100_000 // C, seed=5)
    p = model.bayes_probabilities(X)
    traces = (X**2).sum(axis=1) * (1 - (p**2).sum(axis=1))
    error = 5 * traces.std() / np.sqrt(len(traces))
    assert abs(traces.mean() - bayes_spectrum(model).trace) < error


@pytest.mark.parametrize(("C", "t"), [(2, 1.5), (3, 1.0), (5, 3.0), (6, 0.0)])
def test_every_level_against_samples(C: int, t: float) -> None:
    """Each eigenvalue is the mean over samples of vᵀ (x xᵀ ⊗ U) v for one eigenvector v."""
    model = CanonicalClassificationModel(C + 1, C, t)
    X, _ = model.sample(per_class=60_000 // C, seed=8)
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


def test_the_largest_case_forms_no_large_matrix() -> None:
    """C²×C² would be 800 MB at C = 100; the seconds are measured by ``make bench``."""
    tracemalloc.start()
    try:
        spectrum = bayes_spectrum(CanonicalClassificationModel(200, 100, 7.9))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50e6
    assert spectrum.size == 20_000


def test_large_snr_is_refused() -> None:
    with pytest.raises(ValueError, match="SNR from 0 to 64"):
        bayes_spectrum(CanonicalClassificationModel(3, 3, 65.0))
