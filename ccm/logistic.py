"""Multinomial logistic regression, fitted to an optimum that is checked.

The mean cross-entropy of softmax(W x) plus (η/2) |W|² is minimised by SciPy's trust-region Newton
method with conjugate gradients, on Hessian-vector products; of SciPy's methods it alone drives
the gradient to rounding error here (L-BFGS stops at 1e-9, Newton-CG at 1e-7).

Without weight decay a finite optimum exists only if no W separates the classes, nor some of the
samples. An iterate with every margin positive is itself a certificate of separation. Where only
some samples can be separated the loss falls for ever along a direction in which gradient and
curvature vanish together, so the Newton step stays large while the gradient gets small; whether it
is that or only slow, a linear programme decides (:mod:`ccm.separation`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import svd
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import log_softmax, softmax

from ccm.fisher import as_design, fim_operator
from ccm.model import as_count, as_real
from ccm.parts import as_labels
from ccm.separation import partly_separable


class SeparableDataError(ValueError):
    """The loss has no finite minimiser: the data can be separated and nothing holds W back."""


class ConvergenceError(RuntimeError):
    """The optimiser stopped before the optimum."""


GRADIENT_TOLERANCE = 1e-10  # largest entry, in coordinates of curvature about one
ROUNDING = 1e-13  # length of a gradient that is nothing but rounding
REMEDY = "pass weight_decay > 0 (1e-4, say), or more samples"


def as_weight_decay(value: float) -> float:
    """η as a float, checked.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is negative or not finite.

    Examples
    --------
    >>> as_weight_decay(0)
    0.0
    """
    weight_decay = as_real(value, "weight_decay")
    if not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"weight_decay must be finite and at least 0, got {weight_decay}")
    return weight_decay


@dataclass(frozen=True)
class LogisticFit:
    """A fitted multinomial logistic regression and the evidence that it is an optimum.

    ``weights`` is W (C, D); ``loss`` the mean cross-entropy without the penalty; ``gradient`` the
    largest entry of the objective's gradient and ``newton_step`` the length of the Newton step
    that is left, relative to 1 + |W|, both in coordinates in which the curvature is about one;
    ``iterations`` how many Newton iterations it took.
    """

    weights: Float[np.ndarray, "C D"]
    weight_decay: float
    loss: float
    gradient: float
    newton_step: float
    iterations: int

    def probabilities(self, X: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n C"]:
        """softmax(W x) for each row x.

        Raises
        ------
        ValueError
            If X is not a finite (n, D) array with the D of the fit.
        """
        X = as_design(X)
        if X.shape[1] != self.weights.shape[1]:
            raise ValueError(
                f"X must have {self.weights.shape[1]} columns, as the data of the fit; "
                f"got {X.shape[1]}"
            )
        return softmax(X @ self.weights.T, axis=1)

    def error(self, X: Float[np.ndarray, "n D"], y: Int[np.ndarray, " n"]) -> float:
        """The share of samples whose largest probability is not at their label.

        Raises
        ------
        TypeError, ValueError
            If X or the labels do not fit the classifier.
        """
        probabilities = self.probabilities(X)
        labels = as_labels(y, *probabilities.shape)
        return float(np.mean(probabilities.argmax(axis=1) != labels))


def fit_logistic(
    X: Float[np.ndarray, "n D"],
    y: Int[np.ndarray, " n"],
    weight_decay: float = 0.0,
    num_classes: int | None = None,
    max_iterations: int = 500,
) -> LogisticFit:
    """The W that minimises mean cross-entropy of softmax(W x) plus (weight_decay/2) |W|².

    Parameters
    ----------
    X, y
        Samples (n, D) and labels in 0, …, C-1. There is no intercept.
    weight_decay
        η ≥ 0. With 0, W is the optimum whose columns sum to zero over the classes.
    num_classes
        C; by default one more than the largest label.
    max_iterations
        How many Newton iterations are allowed.

    Raises
    ------
    TypeError, ValueError
        If X, the labels, the weight decay or C are not as described.
    SeparableDataError
        If there is no finite optimum: no weight decay, and the data are (partly) separable or
        a class has no samples.
    ConvergenceError
        If after ``max_iterations`` the gradient has an entry above 1e-10, or the next Newton step
        is above 1e-4 of the weights.

    Examples
    --------
    Half the samples at each x contradict the other half by 3 to 1, so f_1 - f_0 = ±ln 3:

    >>> X, y = np.array([[1.0]] * 4 + [[-1.0]] * 4), np.array([1, 1, 1, 0, 0, 0, 0, 1])
    >>> fit_logistic(X, y).probabilities(np.array([[1.0]])).round(9)
    array([[0.25, 0.75]])
    """
    X = as_design(X)
    largest = int(np.max(y, initial=0)) if np.asarray(y).dtype.kind in "iu" else 0
    C = max(2, largest + 1) if num_classes is None else as_count(num_classes, "num_classes", 2)
    max_iterations = as_count(max_iterations, "max_iterations", 1)
    labels = as_labels(y, len(X), C)
    weight_decay = as_weight_decay(weight_decay)
    counts = np.bincount(labels, minlength=C)
    if weight_decay == 0 and (counts == 0).any():
        raise SeparableDataError(
            f"class {int(np.argmin(counts))} has no samples: without weight decay its logit "
            f"falls for ever and there is no optimum; {REMEDY}"
        )
    basis = _Basis.of(X, weight_decay)
    features, penalty = basis.features, basis.penalty[:, None]
    n, r = features.shape
    rows = np.arange(n)

    def objective(theta: Float[np.ndarray, " rC"]) -> tuple[float, Float[np.ndarray, " rC"]]:
        z = theta.reshape(r, C)
        logs = log_softmax(features @ z, axis=1)
        slope = np.exp(logs)
        slope[rows, labels] -= 1
        gradient = features.T @ slope / n + penalty * z
        value = (penalty * z * z).sum() / 2 - logs[rows, labels].mean()
        return float(value), gradient.ravel()

    def curvature(theta: Float[np.ndarray, " rC"]) -> LinearOperator:
        fim = fim_operator(features, softmax(features @ theta.reshape(r, C), axis=1))
        diagonal = np.repeat(basis.penalty, C)
        return LinearOperator(fim.shape, lambda v: fim @ v + diagonal * np.ravel(v), dtype=float)

    def newton(
        theta: Float[np.ndarray, " rC"], slope: Float[np.ndarray, " rC"]
    ) -> Float[np.ndarray, " rC"]:
        """Curvature⁻¹ slope, off the direction 1 of the classes, and 0 if the slope is rounding."""
        centred = slope.reshape(r, C)
        if weight_decay == 0:
            centred = centred - centred.mean(axis=1, keepdims=True)
        step, _ = cg(curvature(theta), centred.ravel(), rtol=1e-3, atol=ROUNDING, maxiter=500)
        return step

    def refuse_separation(theta: Float[np.ndarray, " rC"]) -> None:
        logits = features @ theta.reshape(r, C)
        own = logits[rows, labels].copy()
        logits[rows, labels] = -np.inf
        if (own > logits.max(axis=1)).all():
            raise SeparableDataError(
                f"the {n} samples are linearly separable (every margin is positive), so that "
                f"without weight decay the loss has no finite optimum; {REMEDY}"
            )

    result = minimize(
        objective,
        np.zeros(r * C),
        jac=True,
        hessp=lambda theta, v: curvature(theta) @ v,
        method="trust-ncg",
        callback=refuse_separation if weight_decay == 0 else None,
        options={"gtol": GRADIENT_TOLERANCE, "maxiter": max_iterations},
    )
    theta, iterations = result.x, int(result.nit)
    value, slope = objective(theta)
    if iterations < max_iterations and np.abs(slope).max() > GRADIENT_TOLERANCE:
        # Close to the optimum the trust region judges steps by differences of the objective
        # that are rounding; the gradient still tells, and a plain Newton step brings it down.
        theta = theta - newton(theta, slope)
        value, slope = objective(theta)
    gradient = float(np.abs(slope).max())
    newton_step = float(np.linalg.norm(newton(theta, slope)) / (1 + np.linalg.norm(theta)))
    suspected = newton_step > 1e-4 or gradient > GRADIENT_TOLERANCE
    if weight_decay == 0 and suspected and partly_separable(features, labels, C):
        raise SeparableDataError(
            f"the weights still grow (next Newton step {newton_step:.2g} of their length) though "
            f"the gradient is {gradient:.2g}: the data are partly separable (a linear programme "
            f"says so) and without weight decay there is no finite optimum; {REMEDY}"
        )
    if gradient > GRADIENT_TOLERANCE or (weight_decay == 0 and newton_step > 1e-4):
        raise ConvergenceError(
            f"the gradient is {gradient:.2g} after {iterations} Newton iterations (the tolerance "
            f"is {GRADIENT_TOLERANCE:g}) and the next step {newton_step:.2g} of the weights' "
            "length; raise max_iterations, or scale the features: less their mean, if there is a "
            "constant column, and over their spread"
        )
    z = theta.reshape(r, C)
    return LogisticFit(
        weights=(basis.back @ z).T,
        weight_decay=weight_decay,
        loss=value - float((penalty * z * z).sum()) / 2,
        gradient=gradient,
        newton_step=newton_step,
        iterations=iterations,
    )


@dataclass(frozen=True)
class _Basis:
    """Coordinates z of the weights, W^T = back z, in which the curvature at W = 0 is about one.

    With X = U S V^T the curvature of the loss at 0 is V (S²/n) V^T ⊗ (I - 11^T/C)/C, to which
    weight decay adds η; so back = V diag(m) with m² = 1/(S²/n + η), X in units of its own. Columns
    of very different sizes, or far from zero beside their spread, then cost no digits but those
    of the SVD, and tolerances and trust region mean the same for all X.
    """

    features: Float[np.ndarray, "n r"]  # X back
    back: Float[np.ndarray, "D r"]
    penalty: Float[np.ndarray, " r"]  # η m²

    @classmethod
    def of(cls, X: Float[np.ndarray, "n D"], weight_decay: float) -> _Basis:
        # Squares of entries may leave the range of floats. Each column has its own unit where
        # weight decay, which counts them all alike, does not forbid it.
        largest = np.abs(X).max(axis=0)
        scale = largest if weight_decay == 0 else np.full_like(largest, largest.max())
        scale = np.where(scale > 0, scale, 1.0)
        left, sizes, right = svd(X / scale, full_matrices=False)
        kept = sizes > sizes[0] * max(X.shape) * np.finfo(float).eps
        if not kept.any():  # X = 0: any coordinates do
            return cls(np.zeros((len(X), 1)), np.zeros((X.shape[1], 1)), np.ones(1))
        left, sizes, right = left[:, kept], sizes[kept], right[kept]
        roots = np.sqrt(weight_decay) / scale[0]  # all are one where there is weight decay
        m = 1 / np.hypot(sizes / np.sqrt(len(X)), roots)
        return cls(left * (sizes * m), right.T * m / scale[:, None], (roots * m) ** 2)
