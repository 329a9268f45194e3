"""Expectations of Gaussian coordinates times a softmax probability, as one-dimensional integrals.

Let x ~ N(t e_a, I_C) and p_b = exp(t x_b) / S with S = Σ_c exp(t x_c). From
1/S = ∫_0^∞ exp(-uS) du with u = exp(-v),

    p_b = ∫ g(t x_b - v) Π_{i≠b} h(t x_i - v) dv,    h(w) = exp(-exp(w)),  g(w) = exp(w) h(w),

(the Gumbel-max trick read backwards). Every factor depends on one coordinate only, so that the
expectation of a monomial times p_b is one integral over v of a product of integrals over single
coordinates, whatever the number of classes. Both kinds of integrals have integrands analytic in
a strip (half-width π/2 in v, π/(2t) in x) that decay fast, where the trapezoidal rule with step
ε converges as exp(-π²/ε): ε = 1/4 leaves about 1e-16.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.special import log_ndtr

STEP = 0.25  # of both trapezoidal rules, in units of the integrands' own scale
TAIL = 9.5  # standard deviations kept beyond what is typical: φ(9.5) = 1e-20
LARGEST_SNR = 64.0


def _grid(low: float, high: float, step: float) -> Float[np.ndarray, " m"]:
    """Points from low to at least high. numpy.arange would round the step itself to 1e-14."""
    return low + step * np.arange(int((high - low) / step) + 2)


def check_integrable(snr: float) -> None:
    """That the integrals over the Bayes classifier can be computed at this SNR.

    Raises
    ------
    ValueError
        If the SNR is not from 0 to 64.

    Examples
    --------
    >>> check_integrable(64.0)
    """
    if not 0 <= snr <= LARGEST_SNR:
        raise ValueError(
            f"integrals over the Bayes classifier take an SNR from 0 to {LARGEST_SNR:g}, got "
            f"{snr:g}; beyond that the error rate is below 1e-400 and the FIM is zero"
        )


@lru_cache(maxsize=128)  # a curve over SNRs is drawn for one C after another
def _coordinate_integrals(snr: float) -> Float[np.ndarray, "2 2 3 V"]:
    """∫ φ(x - μ) xⁿ κ(t x - v) dx on the grid of v; axes: κ ∈ (h, g), μ ∈ (0, t), n ∈ (0, 1, 2)."""
    step = STEP / max(snr, 1.0)
    x = _grid(-TAIL, snr + TAIL, step)
    v = _grid(-snr * TAIL - 6.0, snr * (snr + TAIL) + 45.0, STEP)
    density = np.exp(-0.5 * (x - np.array([[0.0], [snr]])) ** 2) / np.sqrt(2 * np.pi)
    weights = step * density[:, None, :] * x ** np.arange(3)[:, None]  # (2, 3, X)
    table = np.empty((2, 2, 3, v.size))
    for start in range(0, v.size, 512):
        part = slice(start, start + 512)
        # exp(-exp(w)) is 0 in double precision from w = 7 on: no larger x takes part, and w is
        # cut there to avoid overflow.
        near = slice(0, int(np.searchsorted(snr * x, v[part][-1] + 7.0)))
        growth = np.exp(np.minimum(snr * x[near, None] - v[None, part], 7.0))
        h = np.exp(-growth)
        table[0, :, :, part] = weights[..., near] @ h
        table[1, :, :, part] = weights[..., near] @ (h * growth)
    table.flags.writeable = False
    return table


def softmax_moment(
    num_classes: int,
    snr: float,
    coordinates: Sequence[int],
    softmax_class: int,
    mean_class: int,
) -> float:
    """E[Π_k x_k · p_b] for x ~ N(t e_a, I_C) and p = softmax(t x), b the softmax class.

    Exact to quadrature accuracy: about 1e-14 absolute for 0 ≤ t ≤ 8, and for b ≠ a about 1e-12
    relative too, however small (the tails that are cut have a weight of φ(9.5) beside the
    mass, which lies at 0 ≤ x ≤ t). See the module's docstring for the equation.
    docs/theory.md §2, level 3.

    Parameters
    ----------
    num_classes
        C, at least 2.
    snr
        t, from 0 to 64; no unit.
    coordinates
        The indices k of the monomial, each at most twice; empty for E p_b.
    softmax_class, mean_class
        b and a. Only which indices are equal matters.

    Raises
    ------
    ValueError
        If the SNR is above 64, if a coordinate occurs more than twice, or if more indices are
        named than there are classes.

    Examples
    --------
    At t = 0 the probabilities are uniform and independent of x:

    >>> round(softmax_moment(4, 0.0, (1, 1), 0, 2), 12)
    0.25
    """
    check_integrable(snr)
    powers = Counter(coordinates)
    if powers and max(powers.values()) > 2:
        raise ValueError(
            f"each coordinate may occur at most twice in a moment, got {tuple(coordinates)}"
        )
    named = sorted({*coordinates, softmax_class, mean_class})
    if len(named) > num_classes:
        raise ValueError(
            f"{len(named)} different indices are named but there are only {num_classes} classes"
        )
    table = _coordinate_integrals(float(snr))
    product = table[0, 0, 0] ** (num_classes - len(named))
    for i in named:
        product = product * table[int(i == softmax_class), int(i == mean_class), powers[i]]
    return float(STEP * product.sum())


def largest_coordinate_error(num_classes: int, snr: float) -> float:
    """The chance that x_a is not the largest coordinate of x ~ N(t e_a, I_C).

    1 - ∫ φ(z - t) Φ(z)^(C-1) dz, computed as ∫ φ(z - t) (1 - Φ(z)^(C-1)) dz without
    cancellation. docs/theory.md §2, level 3.

    Examples
    --------
    >>> round(largest_coordinate_error(4, 0.0), 12)
    0.75
    """
    reach = TAIL + snr / 2
    step = 0.05
    z = _grid(snr - reach, snr + reach, step)
    density = np.exp(-0.5 * (z - snr) ** 2) / np.sqrt(2 * np.pi)
    return float(step * np.sum(density * -np.expm1((num_classes - 1) * log_ndtr(z))))
