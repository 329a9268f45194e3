"""Level 3: the population FIM at the Bayes classifier, exactly. Ours, not in the papers.

The optimal classifier softmax(t x_1, …, t x_C) has probabilities that vary with x. The mixture's
density times p_a is that of N(t e_a, I)/C, so with E_a the mean over class a

    F[(i, a), (j, b)] = -(1/C) E_a[x_i x_j p_b],  a ≠ b,   and   Σ_b F[(i, a), (j, b)] = 0

on the signal coordinates i, j ≤ C, and I ⊗ (1/C)([a = b] - E_a p_b), with eigenvalue α/(C-1) on
1⊥, on the D-C others. E_a[x_i x_j p_b] is a one-dimensional integral
(:mod:`ccm.softmax_moments`) and depends only on which of i, j, a, b are equal. The entries with
a = b come from the sum over b: E_a[x_i x_j (1 - p_a)] as a difference from E_a[x_i x_j] would
leave nothing but rounding from t = 10 on, where 1 - p_a is 1e-11 in the mean.

F commutes with permutations of the classes and F (· ⊗ 1) = 0, so it lives on R^C ⊗ 1⊥, which is
the sum of the irreducible parts

    trivial 1,  standard C-1 (twice),  symmetric C(C-3)/2,  antisymmetric (C-1)(C-2)/2,

and by Schur's lemma F is a number on each of those that occur once, a 2 × 2 matrix on the pair.
Each number is read off an entry of F times a vector of that type. For C = 2 the standard part
occurs once; for C = 3 there is no symmetric one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float

from ccm.model import CanonicalClassificationModel
from ccm.softmax_moments import softmax_moment
from ccm.spectrum import Level, Spectrum

# An entry of a C × C array that is constant on the classes it does not name.
Entries = Callable[[int, int], float]


@lru_cache(maxsize=4096)
def _entry(C: int, t: float, i: int, a: int, j: int, b: int) -> float:
    """F[(i, a), (j, b)] for a pattern of equal indices, each the order in which it first occurs."""
    if a != b:
        return -softmax_moment(C, t, (i, j), b, a) / C
    named = {i, j, a}
    others = dict.fromkeys(named - {a}, 1)
    if len(named) < C:
        others[len(named)] = C - len(named)  # one for all the classes that the entry does not name
    return math.fsum(n * softmax_moment(C, t, (i, j), c, a) for c, n in others.items()) / C


def _pattern(*indices: int) -> tuple[int, ...]:
    """Which indices are equal: each replaced by the order in which it first occurs."""
    seen: dict[int, int] = {}
    return tuple(seen.setdefault(index, len(seen)) for index in indices)


@dataclass(frozen=True)
class SignalBlock:
    """F on the signal coordinates, by its at most 15 different entries."""

    num_classes: int
    snr: float

    def entry(self, i: int, a: int, j: int, b: int) -> float:
        """F[(i, a), (j, b)]."""
        return _entry(self.num_classes, self.snr, *_pattern(i, a, j, b))

    def image(self, vector: Entries, i: int, a: int, named: int) -> float:
        """Entry (i, a) of F times a vector, for a vector that names the classes below ``named``.

        The sum over all (j, b) in five orbits: each index is one of the named classes or any
        of the C - named others, and two others are equal or not.
        """
        others = self.num_classes - named
        terms = []
        for j, b in product(range(named + 2), repeat=2):
            if max(j, b) < named:
                count = 1
            elif min(j, b) < named:
                count = others if max(j, b) == named else 0
            elif j == named:  # (j, b) stands for two equal others, or for two different ones
                count = others if b == named else others * (others - 1)
            else:
                count = 0
            value = vector(j, b) if count else 0.0
            if value:
                terms.append(count * value * self.entry(i, a, j, b))
        return math.fsum(terms)

    def trivial(self) -> float:
        """The number on the invariant vector [j = b] - [j ≠ b]/(C-1)."""
        return self.image(lambda j, b: 1.0 if j == b else -1 / (self.num_classes - 1), 0, 0, 1)

    def antisymmetric(self) -> float:
        """The number on Σ_cyclic e_j ∧ e_{j+1} over three classes; needs C ≥ 3."""
        return self.image(_cyclic_sign, 0, 1, 3)

    def symmetric(self) -> float:
        """The number on (e_0 - e_1)(e_2 - e_3) symmetrised; needs C ≥ 4."""
        sign = (1, -1, 1, -1)

        def vector(j: int, b: int) -> float:
            return sign[j] * sign[b] if max(j, b) < 4 and (j < 2) != (b < 2) else 0.0

        return self.image(vector, 0, 2, 4)

    def standard(self) -> tuple[float, ...]:
        """The numbers on the standard parts, descending: one for C = 2, else two.

        With ξ = e_0 - e_1, the two copies hold L = 1 ξᵀ and M = diag ξ - (ξ 1ᵀ + 1 ξᵀ)/C, which
        are orthogonal with squared lengths C |ξ|² and (C-2)/C |ξ|²; for C = 2, M is zero.
        """
        C = self.num_classes

        def xi(j: int) -> float:
            return {0: 1.0, 1: -1.0}.get(j, 0.0)

        def along(j: int, b: int) -> float:
            return xi(b)

        def across(j: int, b: int) -> float:
            return (j == b) * xi(j) - (xi(j) + xi(b)) / C

        if C == 2:
            return (self.image(along, 0, 0, 2),)
        columns = []
        for vector in (along, across):
            on_class, elsewhere = self.image(vector, 0, 0, 2), self.image(vector, 2, 0, 3)
            in_across = (on_class - elsewhere) * C / (C - 1)
            columns.append((elsewhere + in_across / C, in_across))
        lengths = np.sqrt([C, (C - 2) / C])
        matrix = np.array(columns).T * lengths[:, None] / lengths
        return tuple(np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1].tolist())


def _cyclic_sign(j: int, b: int) -> float:
    """1 for (0, 1), (1, 2), (2, 0), -1 for the reverse, else 0."""
    if j == b or max(j, b) > 2:
        return 0.0
    return 1.0 if (b - j) % 3 == 1 else -1.0


def bayes_spectrum(model: CanonicalClassificationModel) -> Spectrum:
    """Every eigenvalue of the population FIM at the Bayes classifier; docs/theory.md §2, level 3.

    Labels: "outliers" (C-1, the larger standard number), "mini-bulk: antisymmetric"
    (C-1)(C-2)/2, "mini-bulk: standard" C-1, "mini-bulk: symmetric" C(C-3)/2, "mini-bulk: trivial"
    1, "bulk" (D-C)(C-1) and "null" D. Groups without eigenvalues are left out. Accuracy 1e-8
    absolute or better for C ≤ 100 and t ≤ 8, and about 1e-9 relative up to t = 53, where the
    FIM (of size exp(-t²/4)) leaves the range of floats; then all is zero. The cost does not
    grow with C, but like t⁴: 0.1 s at t = 10, some seconds at t = 64.

    Raises
    ------
    ValueError
        If the SNR is above 64.

    Examples
    --------
    >>> for level in bayes_spectrum(CanonicalClassificationModel(6, 3, 1.0)).levels:
    ...     print(f"{level.label:25}{level.value:9.6f}{level.multiplicity:4}")
    outliers                  0.357859   2
    mini-bulk: antisymmetric  0.305481   1
    bulk                      0.240563   6
    mini-bulk: standard       0.207183   2
    mini-bulk: trivial        0.183102   1
    null                      0.000000   6
    """
    D, C = model.dim, model.num_classes
    block = SignalBlock(C, model.snr)
    levels = [Level(block.standard()[0], C - 1, "outliers")]
    if C > 2:
        levels.append(
            Level(block.antisymmetric(), (C - 1) * (C - 2) // 2, "mini-bulk: antisymmetric")
        )
        levels.append(Level(block.standard()[1], C - 1, "mini-bulk: standard"))
    if C > 3:
        levels.append(Level(block.symmetric(), C * (C - 3) // 2, "mini-bulk: symmetric"))
    levels.append(Level(block.trivial(), 1, "mini-bulk: trivial"))
    if D > C:
        levels.append(Level(model.bayes_alpha() / (C - 1), (D - C) * (C - 1), "bulk"))
    levels.append(Level(0.0, D, "null"))
    return Spectrum.of(levels)


def bayes_fim(model: CanonicalClassificationModel) -> Float[np.ndarray, "DC DC"]:
    """The same FIM as a dense matrix, for small models; entry (d, c) is at index d·C + c.

    Raises
    ------
    ValueError
        If the SNR is above 64.

    Examples
    --------
    >>> fim = bayes_fim(CanonicalClassificationModel(2, 2, 0.0))
    >>> fim[:2, :2].round(12)
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    D, C = model.dim, model.num_classes
    block = SignalBlock(C, model.snr)
    fim = np.zeros((D, C, D, C))
    for index in product(range(C), repeat=4):
        fim[index] = block.entry(*index)
    noise = (np.eye(C) - 1 / C) * model.bayes_alpha() / (C - 1)
    for d in range(C, D):
        fim[d, :, d, :] = noise
    return fim.reshape(D * C, D * C)
