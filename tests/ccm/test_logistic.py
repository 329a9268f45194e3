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

MODEL = CanonicalClassificationModel(dim=8, num_classes=3, snr=1.5)


def test_the_gradient_by_definition_vanishes() -> None:
    X, y = MODEL.sample(per_class=200, rng=0)
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
    X, y = MODEL.sample(per_class=100, rng=1)
    foreign = LogisticRegression(
        C=1 / (weight_decay * len(y)), fit_intercept=False, tol=1e-10, max_iter=2000
    ).fit(X, y)
    ours = fit_logistic(X, y, weight_decay=weight_decay)
    np.testing.assert_allclose(ours.weights, foreign.coef_, atol=1e-6)


def test_many_samples_give_the_bayes_classifier() -> None:
    X, y = MODEL.sample(per_class=60_000, rng=2)
    W = fit_logistic(X, y).weights
    bayes = MODEL.snr * (np.eye(3, 8) - np.concatenate([np.ones((3, 3)) / 3, np.zeros((3, 5))], 1))
    assert np.abs(W - bayes).max() < 0.05
    np.testing.assert_allclose(W.sum(axis=0), 0, atol=1e-8)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-4, 1e4), st.integers(0, 100))
def test_units_do_not_matter(scale: float, seed: int) -> None:
    X, y = MODEL.sample(per_class=60, rng=seed)
    weights = fit_logistic(X, y, weight_decay=0.01).weights
    scaled = fit_logistic(scale * X, y, weight_decay=0.01 * scale**2).weights
    np.testing.assert_allclose(scaled * scale, weights, rtol=1e-5, atol=1e-7)


def test_the_error_rate() -> None:
    X, y = MODEL.sample(per_class=3000, rng=3)
    fit = fit_logistic(X, y)
    rate = MODEL.bayes_error()
    spread = np.sqrt(rate * (1 - rate) / len(y))
    assert abs(fit.error(X, y) - rate) < 6 * spread


@pytest.mark.parametrize("snr", [3.0, 8.0])
def test_separable_data_need_weight_decay(snr: float) -> None:
    X, y = CanonicalClassificationModel(100, 3, snr).sample(per_class=20, rng=0)
    with pytest.raises(SeparableDataError, match=r"linearly separable.*pass weight_decay > 0"):
        fit_logistic(X, y)
    assert fit_logistic(X, y, weight_decay=1e-4).gradient < 1e-9


def test_partly_separable_data_need_weight_decay() -> None:
    """Samples at 1 are all of class 1; those at 0 are of both, whatever W: no finite optimum."""
    X, y = np.array([[1.0], [1], [1], [0], [0]]), np.array([1, 1, 1, 0, 1])
    with pytest.raises(SeparableDataError, match="partly separable"):
        fit_logistic(X, y)


def test_a_class_without_samples_needs_weight_decay() -> None:
    X, y = MODEL.sample(per_class=20, rng=0)
    with pytest.raises(SeparableDataError, match="class 3 has no samples"):
        fit_logistic(X, y, num_classes=4)
    assert fit_logistic(X, y, weight_decay=0.1, num_classes=4).weights.shape == (4, 8)


def test_too_few_iterations_are_reported() -> None:
    X, y = MODEL.sample(per_class=20, rng=0)
    with pytest.raises(ConvergenceError, match="after 1 Newton iterations"):
        fit_logistic(X, y, weight_decay=0.01, max_iterations=1)


def test_bad_input() -> None:
    X, y = MODEL.sample(per_class=20, rng=0)
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
