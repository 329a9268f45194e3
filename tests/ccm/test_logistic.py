"""The fit reaches its optimum, and says so when there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ccm import (
    CanonicalClassificationModel,
    ConvergenceError,
    SeparableDataError,
    fit_logistic,
)
from ccm.separation import partly_separable

MODEL = CanonicalClassificationModel(dim=8, num_classes=3, snr=1.5)


def test_the_gradient_by_definition_vanishes() -> None:
    X, y = MODEL.sample(per_class=200, seed=0)
    fit = fit_logistic(X, y, weight_decay=0.01)
    gradient = 0.01 * fit.weights
    for x, label, p in zip(X, y, fit.probabilities(X), strict=True):
        gradient += np.outer(p - np.eye(3)[label], x) / len(X)
    assert np.abs(gradient).max() < 1e-9
    assert fit.gradient < 1e-9
    assert fit.newton_step < 1e-6
    expected = -np.log(fit.probabilities(X)[np.arange(len(y)), y]).mean()
    assert fit.loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight_decay", [1e-3, 0.1])
def test_against_scikit_learn(weight_decay: float) -> None:
    X, y = MODEL.sample(per_class=100, seed=1)
    foreign = LogisticRegression(
        C=1 / (weight_decay * len(y)), fit_intercept=False, tol=1e-10, max_iter=2000
    ).fit(X, y)
    ours = fit_logistic(X, y, weight_decay=weight_decay)
    np.testing.assert_allclose(ours.weights, foreign.coef_, atol=1e-6)


def test_many_samples_give_the_bayes_classifier() -> None:
    X, y = MODEL.sample(per_class=60_000, seed=2)
    W = fit_logistic(X, y).weights
    bayes = MODEL.snr * (np.eye(3, 8) - np.concatenate([np.ones((3, 3)) / 3, np.zeros((3, 5))], 1))
    assert np.abs(W - bayes).max() < 0.05
    np.testing.assert_allclose(W.sum(axis=0), 0, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-4, 1e4), st.integers(0, 100))
def test_units_do_not_matter(scale: float, seed: int) -> None:
    X, y = MODEL.sample(per_class=60, seed=seed)
    weights = fit_logistic(X, y, weight_decay=0.01).weights
    scaled = fit_logistic(scale * X, y, weight_decay=0.01 * scale**2).weights
    np.testing.assert_allclose(scaled * scale, weights, rtol=1e-5, atol=1e-7)


def test_the_error_rate() -> None:
    X, y = MODEL.sample(per_class=3000, seed=3)
    fit = fit_logistic(X, y)
    rate = MODEL.bayes_error()
    spread = np.sqrt(rate * (1 - rate) / len(y))
    assert abs(fit.error(X, y) - rate) < 6 * spread


@pytest.mark.parametrize("snr", [3.0, 8.0])
def test_separable_data_need_weight_decay(snr: float) -> None:
    X, y = CanonicalClassificationModel(100, 3, snr).sample(per_class=20, seed=0)
    with pytest.raises(SeparableDataError, match=r"linearly separable.*pass weight_decay > 0"):
        fit_logistic(X, y)
    assert fit_logistic(X, y, weight_decay=1e-4).gradient < 1e-9


def test_partly_separable_data_need_weight_decay() -> None:
    """Samples at 1 are all of class 1; those at 0 are of both, whatever W: no finite optimum."""
    X, y = np.array([[1.0], [1], [1], [0], [0]]), np.array([1, 1, 1, 0, 1])
    with pytest.raises(SeparableDataError, match="partly separable"):
        fit_logistic(X, y)


@pytest.mark.parametrize(
    ("scales", "offset"),
    [((1, 1, 1), 1e4), ((1e-8, 1, 1e8), 0.0), ((1e150, 1e-150, 1), 0.0), ((1e-3, 1, 1e3), 1e3)],
)
def test_badly_scaled_features_are_not_called_separable(scales: tuple, offset: float) -> None:
    """scikit-learn #15556 and #19193: the same span, so the same optimum."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 3))
    y = (X[:, 0] + rng.normal(size=300) > 0).astype(int)
    ones = np.ones((300, 1))
    expected = fit_logistic(np.hstack([X, ones]), y)
    shifted = fit_logistic(np.hstack([(X + offset) * scales, ones]), y)
    assert shifted.loss == pytest.approx(expected.loss, rel=1e-9)
    W, V = expected.weights, shifted.weights
    np.testing.assert_allclose(V[:, :3] * scales, W[:, :3], rtol=1e-5, atol=1e-7)
    assert expected.loss == pytest.approx(0.5083350106452681, rel=1e-9)


def test_repeated_and_empty_features_are_shared_and_ignored() -> None:
    X, y = MODEL.sample(per_class=60, seed=0)
    weights = fit_logistic(X, y).weights
    wide = fit_logistic(np.hstack([X, X, np.zeros((len(X), 1))]), y).weights
    np.testing.assert_allclose(wide[:, :8], weights / 2, atol=1e-7)
    np.testing.assert_allclose(wide[:, 8:16], weights / 2, atol=1e-7)
    assert not wide[:, 16].any()
    assert not fit_logistic(np.zeros((4, 2)), np.array([0, 1, 0, 1])).weights.any()


def test_almost_separable_data_have_an_optimum_far_out() -> None:
    """One sample in a thousand contradicts: f_1 - f_0 = ln 999 at x = 1."""
    X = np.ones((1000, 1))
    y = np.array([1] * 999 + [0])
    fit = fit_logistic(X, y)
    assert fit.probabilities(np.ones((1, 1)))[0, 1] == pytest.approx(0.999, rel=1e-9)
    assert not partly_separable(X, y, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(3, 12), st.integers(1, 3))
def test_the_linear_programme_and_the_fit_agree(seed: int, C: int, n: int, D: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, size=(n, D)).astype(float)
    y = np.concatenate([np.arange(C), rng.integers(0, C, size=n)])[:n].astype(int)
    C = int(y.max()) + 1
    if C < 2:
        return
    if partly_separable(X, y, C):
        with pytest.raises(SeparableDataError):
            fit_logistic(X, y)
    else:
        assert fit_logistic(X, y).gradient < 1e-9


def test_a_class_without_samples_needs_weight_decay() -> None:
    X, y = MODEL.sample(per_class=20, seed=0)
    with pytest.raises(SeparableDataError, match="class 3 has no samples"):
        fit_logistic(X, y, num_classes=4)
    assert fit_logistic(X, y, weight_decay=0.1, num_classes=4).weights.shape == (4, 8)


def test_too_few_iterations_are_reported() -> None:
    X, y = MODEL.sample(per_class=20, seed=0)
    with pytest.raises(ConvergenceError, match="after 1 Newton iterations"):
        fit_logistic(X, y, weight_decay=0.01, max_iterations=1)


def test_bad_input() -> None:
    X, y = MODEL.sample(per_class=20, seed=0)
    for weight_decay in (-1.0, np.nan):
        with pytest.raises(ValueError, match="weight_decay must be finite and at least 0"):
            fit_logistic(X, y, weight_decay=weight_decay)
    with pytest.raises(TypeError, match="weight_decay must be a number, got 'a'"):
        fit_logistic(X, y, weight_decay="a")
    with pytest.raises(TypeError, match="labels must be integers"):
        fit_logistic(X, y.astype(float))
    with pytest.raises(ValueError, match="labels must be from 0 to 1"):
        fit_logistic(X, y, num_classes=2)
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        fit_logistic(X, y, num_classes=1)
    with pytest.raises(ValueError, match="max_iterations must be at least 1"):
        fit_logistic(X, y, max_iterations=0)
    fit = fit_logistic(X, y, weight_decay=0.1)
    with pytest.raises(ValueError, match="X must have 8 columns"):
        fit.probabilities(X[:, :3])
