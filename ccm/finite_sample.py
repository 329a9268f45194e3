"""Level 2: N samples a class, symmetric probabilities, D and N large. Ours, not in the papers.

Derivation. G = (1/n) Σ_i x_i x_iᵀ ⊗ U_c(i), n = NC, δ = D/n. Away from the means, the resolvent
(G - z)⁻¹ is close to I_D ⊗ Y with Y = (K - z)⁻¹, K = Ave_c U_c (I + δ Y U_c)⁻¹: leaving out one
sample changes little, and x_iᵀ(·)x_i concentrates on D times the mean. Classes are exchangeable
and U_c 1 = 0, so on 1⊥ both are scalars, Y = y and K = k(y), with

    1/y = k(y) - z,   k(y) = Σ_j w_j ℓ_j / (1 + δ y ℓ_j),   w = (1, C-2)/(C-1):

the law of :mod:`ccm.bulk_law`, here of D(C-1) eigenvalues (the other D are zero). The means add
(s/C) Σ_c e_c e_cᵀ ⊗ U_c (I + δ y U_c)⁻¹ to K: there are isolated eigenvalues where
1/y + (s/C) ℓ_j/(1 + δ y ℓ_j) = 0, that is y_j = -1/(ℓ_j (δ + s/C)), or

    τ_j = ℓ_j (1 + s/(Cδ)),

at z(τ_j), which is outside the bulk exactly when dz/dτ = δ - f(τ_j) > 0. So the
critical SNR is where τ_j meets the upper critical point τ₊: t² = Cδ (τ₊/ℓ_j - 1).

No condition 1 + δ y_j ℓ₁ > 0 (that is τ_j > ℓ₁) is needed beside it: where that fails the
mini-bulk is detached just the same, but in the gap of a split bulk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from ccm.bulk_law import BulkLaw, spectral_map
from ccm.model import CanonicalClassificationModel, as_count
from ccm.spectrum import Scalar
from ccm.symmetric import as_alpha, class_eigenvalues

GROUPS = ("outliers", "mini-bulk")


def spike(ell: Scalar, C: Scalar, s: Scalar, delta: Scalar) -> Scalar:
    """τ_j = ℓ_j (1 + s/(Cδ)), where a group of isolated eigenvalues sits."""
    return ell * (1 + s / (C * delta))


@dataclass(frozen=True)
class FiniteSampleLaw:
    """The law of the FIM's eigenvalues at N samples a class; made by :func:`finite_sample_law`.

    The bulk has unit mass on D(C-1) eigenvalues (less the detached ones); D further eigenvalues
    are zero. Everywhere x is an eigenvalue of the FIM.
    """

    model: CanonicalClassificationModel
    alpha: float
    per_class: int

    @property
    def delta(self) -> float:
        """δ = D/(NC), coordinates per sample."""
        return self.model.dim / (self.per_class * self.model.num_classes)

    @property
    def atom_at_zero(self) -> float:
        """The law's mass at 0: 1 - 1/δ if there are fewer samples than coordinates; 1 for α = 0."""
        return self._bulk.atom_at_zero if self._scale else 1.0

    @property
    def edges(self) -> Float[np.ndarray, "k 2"]:
        """The bulk's intervals [low, high], ascending, from dz/dy = 0; two rows if it is split.

        Without a bulk (α = 0) there is no row.

        Examples
        --------
        For C = 2 it is the Marchenko–Pastur law scaled by ℓ₁, here with δ = 1/4 and ℓ₁ = 1/2:

        >>> law = finite_sample_law(CanonicalClassificationModel(10, 2, 0.0), 0.5, per_class=20)
        >>> law.edges
        array([[0.125, 1.125]])
        """
        return self._scale * self._bulk.edges if self._scale else np.empty((0, 2))

    def density(self, x: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
        """The bulk's density per unit of x, Im y(x + i0)/π; to 1e-8.

        The atom at zero is not part of it. For δ = 1 the density is infinite at x = 0.

        Raises
        ------
        ValueError
            If x is not real and finite.

        Examples
        --------
        >>> law = finite_sample_law(CanonicalClassificationModel(10, 2, 0.0), 0.5, per_class=5)
        >>> bool(np.isclose(law.density(0.5), np.sqrt(3) / np.pi))  # Marchenko–Pastur, δ = 1
        True
        """
        x = _real(x)
        if not self._scale:
            return np.zeros(x.shape)[()]
        return (self._bulk.density(x.ravel() / self._scale) / self._scale).reshape(x.shape)[()]

    def cdf(self, x: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
        """The share of the law at or below x, the atom at zero included; in closed form.

        Raises
        ------
        ValueError
            If x is not real and finite.

        Examples
        --------
        >>> law = finite_sample_law(CanonicalClassificationModel(10, 2, 0.0), 0.5, per_class=20)
        >>> law.cdf(np.array([0.0, 2.0]))
        array([0., 1.])
        """
        x = _real(x)
        if not self._scale:
            return (x >= 0).astype(float)[()]
        return self._bulk.cdf(x.ravel() / self._scale).reshape(x.shape)[()]

    def location(self, label: str) -> float | None:
        """Where the group's eigenvalues are, or None when the bulk has absorbed them.

        The outliers, once detached, lie above the bulk; the mini-bulk lies above it or, when
        the bulk is split, possibly in the gap.

        Raises
        ------
        ValueError
            If the label is not "outliers" or "mini-bulk", or it is "mini-bulk" and C = 2.

        Examples
        --------
        >>> model = CanonicalClassificationModel(dim=200, num_classes=4, snr=3.0)
        >>> round(finite_sample_law(model, 0.3, per_class=100).location("outliers"), 3)
        0.955
        """
        if not any(low < self.model.snr < high for low, high in self.snr_windows(label)):
            return None
        model, bulk = self.model, self._bulk
        tau = spike(self._ell(label), model.num_classes, model.signal, self.delta)
        return float(self._scale * spectral_map(tau, self.delta, bulk.ells, bulk.weights))

    def critical_snr(self, label: str) -> float:
        """The SNR above which the group lies above the whole bulk, at this α; inf for α = 0.

        Raises
        ------
        ValueError
            As :meth:`location`.

        Examples
        --------
        For a Marchenko–Pastur bulk (C = 2) it is the classical threshold t² = C √δ:

        >>> law = finite_sample_law(CanonicalClassificationModel(8, 2, 1.0), 0.1, per_class=16)
        >>> round(law.critical_snr("outliers") ** 2, 12)
        1.0
        """
        windows = self.snr_windows(label)
        return windows[-1][0] if windows else math.inf

    def snr_windows(self, label: str) -> tuple[tuple[float, float], ...]:
        """The open intervals of SNR on which the group is detached, ascending, at this α.

        The last is (critical SNR, inf). One before it is where the mini-bulk lies in the gap of
        a split bulk. Empty for α = 0.

        Raises
        ------
        ValueError
            As :meth:`location`.

        Examples
        --------
        >>> law = finite_sample_law(CanonicalClassificationModel(800, 5, 12.0), 0.1, per_class=8)
        >>> [(round(low, 1), round(high, 1)) for low, high in law.snr_windows("mini-bulk")]
        [(4.4, 17.3), (20.0, inf)]
        """
        ell = self._ell(label)
        if not self._scale:
            return ()
        *lower, upper = self._bulk.critical_points

        def snr(tau: float) -> float:
            return math.sqrt(self.model.num_classes * self.delta * (tau / ell - 1))

        gap = [(snr(lower[1]), snr(lower[2]))] if len(lower) == 3 and ell < lower[2] else []
        return (*gap, (snr(upper), math.inf))

    @property
    def _scale(self) -> float:
        """ℓ₁, the unit in which the bulk is solved; 0 for α = 0."""
        return class_eigenvalues(self.model.num_classes, self.alpha)[0]

    @cached_property
    def _bulk(self) -> BulkLaw:
        C = self.model.num_classes
        first, second = class_eigenvalues(C, self.alpha)
        ratio = 1.0 if C == 2 or not first else min(1.0, second / first)
        return BulkLaw(self.delta, ratio, (1 / (C - 1), (C - 2) / (C - 1)))

    def _ell(self, label: str) -> float:
        """ℓ_j of the group, in units of ℓ₁."""
        if label not in GROUPS:
            raise ValueError(f"unknown group {label!r}; the law locates {' and '.join(GROUPS)}")
        if label == "mini-bulk" and self.model.num_classes == 2:
            raise ValueError("with 2 classes there is no mini-bulk; ask for the outliers")
        return self._bulk.ells[GROUPS.index(label)]


def _real(x: object) -> Float[np.ndarray, "..."]:
    array = np.asarray(x)
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"x must be real and finite (it is an eigenvalue), got {x!r}")
    return array.astype(float)


def finite_sample_law(
    model: CanonicalClassificationModel, alpha: float, per_class: int
) -> FiniteSampleLaw:
    """Level 2: the law of the FIM with symmetric probabilities at N samples a class.

    The module's docstring derives it: D and N large at a fixed ratio, C fixed. N → ∞ gives
    level 1.

    Parameters
    ----------
    model
        CCM(D, C) at SNR t.
    alpha
        Mean probability of the wrong classes, 0 to 1 - 1/C.
    per_class
        N, at least 1.

    Raises
    ------
    TypeError, ValueError
        If α or N is out of its range or not a number.

    Examples
    --------
    >>> law = finite_sample_law(CanonicalClassificationModel(200, 4, 2.0), 0.3, per_class=100)
    >>> law.location("mini-bulk") is None
    True
    """
    alpha = as_alpha(model.num_classes, alpha)
    return FiniteSampleLaw(model, alpha, as_count(per_class, "per_class", 1))
