"""A generalised Marchenko–Pastur law with two population eigenvalues, solved in one variable.

The law's Stieltjes transform y(z) satisfies, for weights w_1 + w_2 = 1 and ℓ_1 ≥ ℓ_2 > 0,

    1/y = k(y) - z,    k(y) = Σ_j w_j ℓ_j / (1 + δ y ℓ_j),

the limit law of (1/n) Σ_i ℓ_i x_i x_iᵀ, x_i ~ N(0, I_D), δ = D/n. In the variable τ = -1/(δ y)
everything is elementary:

    z(τ) = τ (δ + Σ w_j ℓ_j/(τ - ℓ_j)),   dz/dτ = δ - f(τ),   f(τ) = Σ w_j ℓ_j²/(τ - ℓ_j)².

f is convex between and monotone outside its poles, so f(τ) = δ (where dz/dy = 0: the edges of the
support) has two real solutions, or four when the support is split. The density comes from the
complex root of a cubic, and the primitive of y dz, hence the cdf, is elementary as well.
:mod:`ccm.symbolic` proves the algebra from the functions below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from ccm.spectrum import Scalar

Pair = tuple[Scalar, Scalar]


def spectral_map(tau: Scalar, delta: Scalar, ells: Pair, weights: Pair) -> Scalar:
    """z(τ) = τ (δ + Σ w_j ℓ_j/(τ - ℓ_j)): the law's equation, solved for z."""
    (l1, l2), (w1, w2) = ells, weights
    return tau * (delta + w1 * l1 / (tau - l1) + w2 * l2 / (tau - l2))


def stretch(tau: Scalar, ells: Pair, weights: Pair) -> Scalar:
    """f(τ) = Σ w_j ℓ_j²/(τ - ℓ_j)²; dz/dτ = δ - f(τ)."""
    (l1, l2), (w1, w2) = ells, weights
    return w1 * l1**2 / (tau - l1) ** 2 + w2 * l2**2 / (tau - l2) ** 2


def cubic(z: Scalar, delta: Scalar, ells: Pair, weights: Pair) -> tuple[Scalar, ...]:
    """Coefficients, highest first, of the cubic in τ that z = z(τ) is."""
    (l1, l2), (w1, w2) = ells, weights
    return (
        delta,
        w1 * l1 + w2 * l2 - delta * (l1 + l2) - z,
        (delta - w1 - w2) * l1 * l2 + z * (l1 + l2),
        -z * l1 * l2,
    )


def _root(excess: Callable[[float], float], low: float, high: float) -> float:
    """The root between two ends; an end where rounding hides the change of sign."""
    at_low, at_high = excess(low), excess(high)
    if at_low * at_high > 0:
        return low if abs(at_low) < abs(at_high) else high
    return brentq(excess, low, high, xtol=1e-300, rtol=4 * np.finfo(float).eps)


@dataclass(frozen=True)
class BulkLaw:
    """The law for ℓ = (1, r), 0 < r ≤ 1, weights w and ratio δ; x is in units of ℓ_1.

    Examples
    --------
    r = 1 is the Marchenko–Pastur law, with edges (1 ± √δ)²:

    >>> BulkLaw(0.25, 1.0, (0.5, 0.5)).edges
    array([[0.25, 2.25]])
    """

    delta: float
    r: float
    weights: tuple[float, float]

    @property
    def ells(self) -> tuple[float, float]:
        """(ℓ_1, ℓ_2) = (1, r)."""
        return 1.0, self.r

    @property
    def atom_at_zero(self) -> float:
        """1 - 1/δ when there are fewer samples than coordinates, else 0."""
        return max(0.0, 1 - 1 / self.delta)

    @cached_property
    def critical_points(self) -> tuple[float, ...]:
        """Where f(τ) = δ, ascending: two numbers, or four when the support is split.

        Found by bisection-safe root finding inside brackets that f's form gives: each pole alone
        keeps f above δ up to a known distance, both together below it beyond another.
        """
        r, (w1, w2), root = self.r, self.weights, math.sqrt(self.delta)
        if 1 - r < 1e-12:  # one eigenvalue, but for rounding: Marchenko–Pastur
            return 1 - 1 / root, 1 + 1 / root

        def excess(tau: float) -> float:
            return 1 / math.sqrt(stretch(tau, self.ells, self.weights)) - 1 / root

        more, less = 1 + 1e-9, 1 - 1e-9  # each bracket is a little wider than it need be
        right = _root(excess, 1 + math.sqrt(w1) / root * less, 1 + more / root)
        if self.delta == 1:
            left = 0.0
        elif self.delta > 1:
            left = _root(excess, r - r / root * more, r - r * math.sqrt(w2) / root * less)
        else:
            left = _root(excess, 1 - more / root, r - r / root * less)
        balance = (w2 * r**2 / w1) ** (1 / 3)
        dip = (r + balance) / (1 + balance)  # the minimum of f between its poles
        if excess(dip) <= 0:
            return left, right
        above_r, below_1 = r + r * math.sqrt(w2) / root * less, 1 - math.sqrt(w1) / root * less
        return left, _root(excess, above_r, dip), _root(excess, dip, below_1), right

    @cached_property
    def edges(self) -> Float[np.ndarray, "k 2"]:
        """The support's intervals [low, high], ascending: one row, or two when it is split."""
        ends = [spectral_map(u, self.delta, self.ells, self.weights) for u in self.critical_points]
        return np.array(ends).reshape(-1, 2)

    def density(self, x: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Im y(x + i0)/π, without the atom; infinite at x = 0 if δ = 1.

        Examples
        --------
        >>> marchenko_pastur = BulkLaw(1.0, 1.0, (0.5, 0.5))
        >>> bool(np.isclose(marchenko_pastur.density(np.array([2.0]))[0], 1 / (2 * np.pi)))
        True
        """
        result = np.zeros(x.shape)
        for low, high in self.edges:
            inside = (x > low) & (x < high)
            tau = self._solve(x[inside])
            result[inside] = tau.imag / np.abs(tau) ** 2 / (np.pi * self.delta)
        if self.delta == 1:
            result[x == 0] = np.inf
        return result

    def cdf(self, x: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """The mass at or below x, with the atom at zero; in closed form.

        (1/π) Im[y k(y) + log y - (1/δ) Σ w_j log(1 + δ y ℓ_j)] at y(x + i0), whose derivative
        by z is y/π. In the gap of a split law this is 1 - w_1/δ.

        Examples
        --------
        >>> BulkLaw(0.25, 1.0, (0.5, 0.5)).cdf(np.array([0.2, 2.3]))
        array([0., 1.])
        """
        plateaus = [self.atom_at_zero, 1.0]
        if len(self.edges) == 2:
            plateaus.insert(1, 1 - self.weights[0] / self.delta)
        result = np.where(x < 0, 0.0, plateaus[0])
        for (low, high), before, after in zip(self.edges, plateaus, plateaus[1:], strict=False):
            result[x >= high] = after
            inside = (x > low) & (x < high)
            tau = self._solve(x[inside])
            y = -1 / (self.delta * tau)
            share = np.angle(y)
            for w, ell in zip(self.weights, self.ells, strict=True):
                factor = 1 + self.delta * y * ell
                share += w * (y * ell / factor).imag - w * np.angle(factor) / self.delta
            nearest = np.where(x[inside] < (low + high) / 2, before, after)
            result[inside] = np.where(tau.imag > 0, np.clip(share / np.pi, before, after), nearest)
        return result

    def _solve(self, z: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """τ in the upper half-plane with z(τ) = z, for z inside the support; real at an edge.

        The cubic's complex root by its companion matrix, then Newton's method on the equation
        itself, whose evaluation loses less than the cubic's coefficients do.
        """
        lead, *rest = cubic(z, self.delta, self.ells, self.weights)
        companion = np.zeros((z.size, 3, 3))
        companion[:, 1, 0] = companion[:, 2, 1] = 1
        companion[:, 0, :] = -np.stack(rest, axis=-1) / lead
        roots = np.linalg.eigvals(companion).astype(complex)
        tau = roots[np.arange(z.size), roots.imag.argmax(axis=1)]
        # Within rounding of an edge all roots are real: the edge's own point stands for them, or
        # at the hard edge τ = 0 of δ = 1 the leading term of z = -τ² Σ w_j/ℓ_j + ….
        lost = tau.imag <= 0
        ends = self.edges.ravel()
        nearest = np.abs(z[lost, None] - ends).argmin(axis=1)
        tau[lost] = np.array(self.critical_points)[nearest]
        hard = tau == 0
        w1, w2 = self.weights
        tau[hard] = 1j * np.sqrt(z[hard] / (w1 + w2 / self.r))
        for _ in range(3):
            slope = self.delta - stretch(tau, self.ells, self.weights)
            miss = spectral_map(tau, self.delta, self.ells, self.weights) - z
            move = np.divide(miss, slope, out=np.zeros_like(tau), where=slope != 0)
            # Next to an edge the slope is tiny and a step is noise: only small steps are taken.
            tau = np.where(np.abs(move) < 0.1 * np.abs(tau.imag), tau - move, tau)
        return tau
