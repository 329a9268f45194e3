"""Level 1: the population FIM when every sample's probabilities are the same but for its class.

Papyan (2020) Definition 8.2, Lemma 8.1 and Theorem 8.1. The formulas are plain arithmetic and take
floats and SymPy symbols alike: :mod:`ccm.symbolic` proves the very functions that run here.

Written with p = 1 - α on the true class and α/(C-1) on the others, and
U_c = diag p_c - p_c p_cᵀ, the FIM is E G = (s/C) Σ_c e_c e_cᵀ ⊗ U_c + I_D ⊗ Ū.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from ccm.model import CanonicalClassificationModel, as_real
from ccm.spectrum import Level, Scalar, Spectrum


def other_probability(C: Scalar, alpha: Scalar) -> Scalar:
    """α/(C-1), the probability of each wrong class; Papyan (2020) Definition 8.2."""
    return alpha / (C - 1)


def class_eigenvalues(C: Scalar, alpha: Scalar) -> tuple[Scalar, Scalar]:
    """ℓ₁ (once) and ℓ₂ (C-2 times), the eigenvalues of U_c besides the 0 of U_c 1 = 0.

    docs/theory.md §2, level 1. Papyan (2020) says after Lemma 8.1 that U_c has rank C; it is C-1.

    Examples
    --------
    >>> class_eigenvalues(4, 0.75)
    (0.25, 0.25)
    """
    return alpha * (1 - alpha) * C / (C - 1), alpha / (C - 1)


def bulk_eigenvalue(C: Scalar, alpha: Scalar) -> Scalar:
    """b = α/(C-1) · (2 - αC/(C-1)), Papyan (2020) Theorem 8.1; the mean of U_c's eigenvalues on 1⊥.

    Examples
    --------
    >>> bulk_eigenvalue(2, 0.5)
    0.5
    """
    return alpha / (C - 1) * (2 - alpha * C / (C - 1))


def outlier_eigenvalue(C: Scalar, s: Scalar, alpha: Scalar) -> Scalar:
    """α s (1-α)/(C-1) + b, Papyan (2020) Theorem 8.1."""
    return alpha * s * (1 - alpha) / (C - 1) + bulk_eigenvalue(C, alpha)


def mini_bulk_eigenvalue(C: Scalar, s: Scalar, alpha: Scalar) -> Scalar:
    """α s/(C(C-1)) + b, Papyan (2020) Theorem 8.1."""
    return alpha * s / (C * (C - 1)) + bulk_eigenvalue(C, alpha)


def multiplicities(D: Scalar, C: Scalar) -> dict[str, Scalar]:
    """How many eigenvalues each group has; together D·C. Papyan (2020) Theorem 8.1.

    Examples
    --------
    >>> multiplicities(50, 10)
    {'outliers': 10, 'mini-bulk': 80, 'bulk': 360, 'null': 50}
    """
    return {
        "outliers": C,
        "mini-bulk": C * (C - 2),
        "bulk": (D - C) * (C - 1),
        "null": D,
    }


def as_alpha(num_classes: int, alpha: float) -> float:
    """α as a float, checked against its range [0, 1 - 1/C]; Papyan (2020) Definition 8.2.

    Raises
    ------
    TypeError
        If α is not a number.
    ValueError
        If it is outside the range (by more than rounding).

    Examples
    --------
    >>> as_alpha(10, 0.9)
    0.9
    """
    value = as_real(alpha, "alpha")
    top = 1 - 1 / num_classes
    if not -1e-14 <= value <= top + 1e-14 or math.isnan(value):
        raise ValueError(
            f"alpha, the mean probability of the wrong classes, must be from 0 to 1 - 1/C = "
            f"{top:g} for {num_classes} classes (beyond it guessing would be better), got {value:g}"
        )
    return min(max(value, 0.0), top)


def symmetric_probabilities(num_classes: int, alpha: float) -> Float[np.ndarray, "C C"]:
    """Row c holds p_c: 1 - α at c and α/(C-1) elsewhere; Papyan (2020) Definition 8.2.

    Raises
    ------
    TypeError, ValueError
        If α is not a number from 0 to 1 - 1/C.

    Examples
    --------
    >>> symmetric_probabilities(3, 0.5)
    array([[0.5 , 0.25, 0.25],
           [0.25, 0.5 , 0.25],
           [0.25, 0.25, 0.5 ]])
    """
    alpha = as_alpha(num_classes, alpha)
    probabilities = np.full((num_classes, num_classes), other_probability(num_classes, alpha))
    np.fill_diagonal(probabilities, 1 - alpha)
    return probabilities


def symmetric_fim(model: CanonicalClassificationModel, alpha: float) -> Float[np.ndarray, "DC DC"]:
    """E G of Lemma 8.1 of Papyan (2020) as a dense matrix; entry (d, c) is at index d·C + c.

    Raises
    ------
    TypeError, ValueError
        If α is not a number from 0 to 1 - 1/C.

    Examples
    --------
    >>> symmetric_fim(CanonicalClassificationModel(2, 2, 0.0), 0.5)[:2, :2]
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    C = model.num_classes
    probabilities = symmetric_probabilities(C, alpha)
    U = np.einsum("ca,ab->cab", probabilities, np.eye(C)) - np.einsum(
        "ca,cb->cab", probabilities, probabilities
    )
    fim = np.kron(np.eye(model.dim), U.mean(axis=0))
    for c in range(C):
        block = slice(c * C, (c + 1) * C)
        fim[block, block] += model.signal / C * U[c]
    return fim


def symmetric_spectrum(model: CanonicalClassificationModel, alpha: float) -> Spectrum:
    """Theorem 8.1 of Papyan (2020): levels "outliers", "mini-bulk", "bulk" and "null".

    ==========  ==========================  ============
    group       eigenvalue                  multiplicity
    ==========  ==========================  ============
    outliers    α s (1-α)/(C-1) + b         C
    mini-bulk   α s/(C(C-1)) + b            C(C-2)
    bulk        b = α/(C-1)(2 - αC/(C-1))   (D-C)(C-1)
    null        0                           D
    ==========  ==========================  ============

    Groups without eigenvalues (the mini-bulk of C = 2, the bulk of D = C) are left out. The
    eigenvalues have the unit of the FIM: squared logits per squared weight, averaged over samples.

    Raises
    ------
    TypeError, ValueError
        If α is not a number from 0 to 1 - 1/C.

    Examples
    --------
    >>> model = CanonicalClassificationModel(dim=6, num_classes=3, snr=2.0)
    >>> for level in symmetric_spectrum(model, 0.5).levels:
    ...     print(f"{level.label:10}{level.value:8.4f}{level.multiplicity:4}")
    outliers    0.8125   3
    mini-bulk   0.6458   3
    bulk        0.3125   6
    null        0.0000   6
    """
    alpha = as_alpha(model.num_classes, alpha)
    C, s = model.num_classes, model.signal
    values = {
        "outliers": outlier_eigenvalue(C, s, alpha),
        "mini-bulk": mini_bulk_eigenvalue(C, s, alpha),
        "bulk": bulk_eigenvalue(C, alpha),
        "null": 0.0,
    }
    counts = multiplicities(model.dim, C)
    return Spectrum.of(
        Level(float(values[label]), counts[label], label) for label in values if counts[label]
    )
