"""The class/cross-class decomposition of an empirical FIM, in logit space.

With g_{i,c'} = x_i ⊗ (p_i - e_c') and weights w_{i,c'} = p_{i,c'}/n, G = Σ w g gᵀ. Write c(i) for
the class of sample i; class and cross-class means are weighted means:

    w_{c,c'} = Σ_{i in c} w_{i,c'},     g_{c,c'} = Σ_{i in c} (w_{i,c'}/w_{c,c'}) g_{i,c'},
    w_c = Σ_{c'≠c} w_{c,c'},            g_c = Σ_{c'≠c} (w_{c,c'}/w_c) g_{c,c'},

    between_class  Σ_c w_c g_c g_cᵀ                                            G_class
    cross_class    Σ_c Σ_{c'≠c} w_{c,c'} (g_{c,c'} - g_c)(g_{c,c'} - g_c)ᵀ     G_cross
    within_class   Σ_{i,c'} w_{i,c'} (g_{i,c'} - g_{c,c'})(…)ᵀ                 G_within
    own_class      Σ_c w_{c,c} g_{c,c} g_{c,c}ᵀ                                G_{c=c'}

(docs/theory.md §1; Papyan 2020, Appendix A, with the cross deviation from g_c, not g_c'.) They sum
to G for any weights and class sizes. With u = X V for a vector v, d_{i,c'} = ⟨g_{i,c'}, v⟩ is
⟨p_i, u_i⟩ - u_{i,c'}, and a coefficient a_{i,c'} of g_{i,c'} goes back as
r_i = p_i Σ_{c'} a_{i,c'} - a_i (:func:`coefficients`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ccm.fisher import (
    Kernel,
    LogitSpaceOperator,
    as_design,
    as_probabilities,
    complements,
    relative_logits,
)


def as_labels(y: object, samples: int, num_classes: int) -> Int[np.ndarray, " n"]:
    """Labels as integers from 0 to C-1, one a sample.

    Raises
    ------
    TypeError
        If they are not integers.
    ValueError
        If there are not n of them, or one is outside 0, …, C-1.

    Examples
    --------
    >>> as_labels([0, 2], samples=2, num_classes=3)
    array([0, 2])
    """
    labels = np.asarray(y)
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels must be integers, got dtype {labels.dtype}; y.astype(int) keeps whole "
            "numbers, and would make one class of soft labels, which have no class structure"
        )
    if labels.shape != (samples,):
        raise ValueError(f"labels must have shape ({samples},), one a sample; got {labels.shape}")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        sample = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"labels must be from 0 to {num_classes - 1} for {num_classes} classes, but sample "
            f"{sample} has {labels[sample]}"
        )
    return labels


def coefficients(
    p: Float[np.ndarray, "n C"], a: Float[np.ndarray, "n C k"]
) -> Float[np.ndarray, "n C k"]:
    """p_c Σ_d a_d - a_c, the transpose of ⟨p, u⟩ - u_c, accurate where p is nearly one-hot.

    For the most probable class m it is p_m Σ_{d≠m} a_d - (Σ_{d≠m} p_d) a_m: 1 - p_m is summed from
    the other probabilities (:func:`ccm.fisher.complements`), since p_m a_m - a_m would leave
    nothing but rounding.

    Examples
    --------
    >>> coefficients(np.array([[1.0, 1e-30]]), np.array([[[1.0], [0.0]]])).ravel()
    array([-1.e-30,  1.e-30])
    """
    top = p.argmax(axis=1)[:, None]
    place = np.broadcast_to(top[:, :, None], (len(p), 1, a.shape[2]))
    of_top = np.take_along_axis(a, place, axis=1)
    others = a.copy()
    np.put_along_axis(others, place, 0.0, axis=1)
    beside = others.sum(axis=1, keepdims=True)
    result = p[:, :, None] * (beside + of_top) - a
    p_top = np.take_along_axis(p, top, axis=1)[:, :, None]
    doubt = np.take_along_axis(complements(p), top, axis=1)[:, :, None]
    np.put_along_axis(result, place, p_top * beside - doubt * of_top, axis=1)
    return result


@dataclass(frozen=True)
class ClassStructure:
    """The four parts of an empirical FIM, as operators on vectors of length D·C."""

    between_class: LogitSpaceOperator
    cross_class: LogitSpaceOperator
    within_class: LogitSpaceOperator
    own_class: LogitSpaceOperator

    @property
    def parts(self) -> dict[str, LogitSpaceOperator]:
        """The parts by name, in the order of the papers."""
        return {
            "between_class": self.between_class,
            "cross_class": self.cross_class,
            "within_class": self.within_class,
            "own_class": self.own_class,
        }


def class_structure(
    X: Float[np.ndarray, "n D"],
    y: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n C"],
) -> ClassStructure:
    """G_class, G_cross, G_within and G_{c=c'} of the empirical FIM.

    docs/theory.md §1; Papyan 2020, Appendix A.

    Parameters
    ----------
    X, y, probabilities
        Samples (n, D), labels in 0, …, C-1, and predicted probabilities (n, C). Classes may
        differ in size and some may be empty.

    Raises
    ------
    TypeError, ValueError
        If X, labels or probabilities are not as described.

    Examples
    --------
    One sample is its own class mean, so that nothing is within:

    >>> parts = class_structure(np.array([[2.0]]), np.array([0]), np.array([[0.5, 0.5]]))
    >>> parts.within_class.to_dense().round(12) + 0.0
    array([[0., 0.],
           [0., 0.]])
    >>> parts.own_class.to_dense() + parts.between_class.to_dense()
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    X = as_design(X)
    p = as_probabilities(probabilities, len(X))
    n, C = p.shape
    labels = as_labels(y, n, C)
    member = np.zeros((C, n))
    member[labels, np.arange(n)] = 1
    w = p / n
    class_weight = member @ w  # w_{c,c'}
    share = np.divide(w, class_weight[labels], out=np.zeros_like(w), where=w > 0)[:, :, None]
    own = np.eye(C, dtype=bool)
    off = np.where(own, 0.0, class_weight)
    total = off.sum(axis=1, keepdims=True)  # w_c
    across = np.divide(off, total, out=np.zeros_like(off), where=total > 0)  # w_{c,c'}/w_c

    def part(coefficient: Kernel) -> LogitSpaceOperator:
        """The operator whose coefficients a (n, C, k) are a linear function of d."""

        def kernel(u: Float[np.ndarray, "n C k"]) -> Float[np.ndarray, "n C k"]:
            u = relative_logits(u, p)
            d = (p[:, :, None] * u).sum(axis=1, keepdims=True) - u
            a = coefficient(d)
            return coefficients(p, a)

        return LogitSpaceOperator(X, C, kernel)

    def means(d: Float[np.ndarray, "n C k"]) -> Float[np.ndarray, "C C k"]:
        """⟨g_{c,c'}, v⟩ for every c and c'."""
        weighted = (share * d).reshape(n, -1)
        return (member @ weighted).reshape(C, C, -1)

    def class_means(m: Float[np.ndarray, "C C k"]) -> Float[np.ndarray, "C 1 k"]:
        """⟨g_c, v⟩ for every c."""
        return (across[:, :, None] * m).sum(axis=1, keepdims=True)

    def between(d: Float[np.ndarray, "n C k"]) -> Float[np.ndarray, "n C k"]:
        return share * (off[:, :, None] * class_means(means(d)))[labels]

    def cross(d: Float[np.ndarray, "n C k"]) -> Float[np.ndarray, "n C k"]:
        m = means(d)
        return share * (off[:, :, None] * (m - class_means(m)))[labels]

    def within(d: Float[np.ndarray, "n C k"]) -> Float[np.ndarray, "n C k"]:
        return w[:, :, None] * (d - means(d)[labels])

    def own_mean(d: Float[np.ndarray, "n C k"]) -> Float[np.ndarray, "n C k"]:
        return share * (np.where(own, class_weight, 0.0)[:, :, None] * means(d))[labels]

    return ClassStructure(part(between), part(cross), part(within), part(own_mean))
