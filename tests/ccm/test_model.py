"""The model: what it samples, and what the best classifier of it can do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ccm import CanonicalClassificationModel
from ccm.softmax_moments import softmax_moment

MODEL = CanonicalClassificationModel(dim=6, num_classes=3, snr=2.0)

# Reference values, absolute accuracy 1e-8: (C, t, alpha, error).
REFERENCE = [
    (3, 1.0, 0.4811258001349561, 0.36629795422192013),
    (5, 2.0, 0.3002192182709511, 0.21216101729041192),
    (10, 2.0, 0.44687972882739035, 0.32635452099306483),
]


@pytest.mark.parametrize(("C", "t", "alpha", "error"), REFERENCE)
def test_bayes_error_and_alpha(C: int, t: float, alpha: float, error: float) -> None:
    model = CanonicalClassificationModel(C + 2, C, t)
    assert model.bayes_alpha() == pytest.approx(alpha, abs=1e-8)
    assert model.bayes_error() == pytest.approx(error, abs=1e-8)


@pytest.mark.parametrize("t", [0.0, 0.5, 3.0, 8.0])
def test_two_classes_have_an_error_in_closed_form(t: float) -> None:
    model = CanonicalClassificationModel(2, 2, t)
    assert model.bayes_error() == pytest.approx(norm.sf(t / np.sqrt(2)), rel=1e-10)


@pytest.mark.parametrize("C", [2, 3, 100])
def test_without_signal_one_guesses(C: int) -> None:
    model = CanonicalClassificationModel(C, C, 0.0)
    assert model.bayes_alpha() == pytest.approx(1 - 1 / C, abs=1e-12)
    assert model.bayes_error() == pytest.approx(1 - 1 / C, abs=1e-12)


def test_bayes_alpha_and_error_against_samples() -> None:
    X, y = MODEL.sample(per_class=20_000, seed=3)
    probabilities = MODEL.bayes_probabilities(X)
    wrong = 1 - probabilities[np.arange(y.size), y]
    missed = probabilities.argmax(axis=1) != y
    for sample, theory in ((wrong, MODEL.bayes_alpha()), (missed, MODEL.bayes_error())):
        assert abs(sample.mean() - theory) < 5 * sample.std() / np.sqrt(y.size)


def test_bayes_probabilities_by_definition() -> None:
    X, _ = MODEL.sample(per_class=2, seed=0)
    densities = np.exp(-0.5 * ((X[:, None] - MODEL.means) ** 2).sum(axis=2))
    expected = densities / densities.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(MODEL.bayes_probabilities(X), expected, rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(C=st.integers(2, 100), t=st.floats(0, 8))
def test_softmax_moments_sum_over_the_classes(C: int, t: float) -> None:
    """Σ_b p_b = 1, so that Σ_b E[x_k² p_b] = E x_k²: an identity over all the integrals."""
    for k, a, expected in ((0, 0, 1 + t**2), (0, 1, 1.0)):
        named = {k, a}
        total = sum(softmax_moment(C, t, (k, k), b, a) for b in named)
        if len(named) < C:
            total += (C - len(named)) * softmax_moment(C, t, (k, k), 2 if a else 1, a)
        assert total == pytest.approx(expected, rel=1e-12)


def test_samples_have_the_model_s_moments() -> None:
    X, y = MODEL.sample(per_class=20_000, seed=1)
    assert X.shape == (60_000, 6)
    for c in range(3):
        mean = X[y == c].mean(axis=0)
        assert np.abs(mean - MODEL.means[c]).max() < 5 / np.sqrt(20_000)
        assert np.abs(np.cov(X[y == c].T) - np.eye(6)).max() < 8 / np.sqrt(20_000)


def test_generators_and_seeds_agree() -> None:
    from_seed = MODEL.sample(4, 7)[0]
    np.testing.assert_array_equal(from_seed, MODEL.sample(4, np.random.default_rng(7))[0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, 4, 1.0), ValueError, "dim must be at least num_classes"),
        ((3, 1, 1.0), ValueError, "num_classes must be at least 2, got 1"),
        ((3, 2, -1.0), ValueError, "snr must be finite and at least 0, got -1"),
        ((3, 2, np.nan), ValueError, "snr must be finite"),
        ((3, 2, 1e200), ValueError, "got 1e\\+200; its square too must be a float"),
        ((3, 2, 10**400), ValueError, "snr must be within the range of floats"),
        ((3, 2, "high"), TypeError, "snr must be a number"),
        ((3, 2, "3"), TypeError, "snr must be a number, got '3'"),
        ((3, 2, True), TypeError, "snr must be a number, got True"),
        ((3, 2, np.True_), TypeError, "snr must be a number"),
        ((3.0, 2, 1.0), TypeError, "dim must be an integer"),
        ((3, True, 1.0), TypeError, "num_classes must be an integer"),
    ],
)
def test_bad_models(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CanonicalClassificationModel(*arguments)


def test_bad_samples() -> None:
    with pytest.raises(ValueError, match="per_class must be at least 1, got 0"):
        MODEL.sample(0, 1)
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator"):
        MODEL.sample(1, None)
    with pytest.raises(ValueError, match="X must have shape"):
        MODEL.bayes_probabilities(np.zeros((2, 5)))


def test_bad_moments() -> None:
    with pytest.raises(ValueError, match="SNR from 0 to 64"):
        softmax_moment(3, 65.0, (), 0, 1)
    with pytest.raises(ValueError, match="at most twice"):
        softmax_moment(3, 1.0, (0, 0, 0), 0, 1)
    with pytest.raises(ValueError, match="only 2 classes"):
        softmax_moment(2, 1.0, (0, 1), 2, 1)
