"""SymPy derivations for symbolic C, D, s and α: code that fails if a formula is changed.

The proofs call the functions of :mod:`ccm.symmetric` and :mod:`ccm.finite_sample` that also
compute the numbers, with symbols in place of floats.

Matrices of symbolic size C. Every matrix that occurs for class c is a combination of five:
I, J = 11ᵀ, e eᵀ, e 1ᵀ and 1 eᵀ, where e = e_c. They act on R^C = span(e, 1) ⊕ {e, 1}⊥ by

    I v = v;   (a bᵀ) v = ⟨b, v⟩ a,   ⟨e, e⟩ = 1, ⟨e, 1⟩ = 1, ⟨1, 1⟩ = C, ⟨e, v⟩ = ⟨1, v⟩ = 0,

so the action on the three kinds of vectors is exact with C a symbol, and three invariant
subspaces of dimensions 1, 1 and C-2 account for every eigenvalue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from ccm import bulk_law, finite_sample, symmetric

C, D, alpha = sp.symbols("C D alpha", positive=True)
t = sp.Symbol("t", nonnegative=True)
s = t**2
ONE = sp.Integer(1)
INNER = {("e", "e"): ONE, ("e", "1"): ONE, ("1", "e"): ONE, ("1", "1"): C}


class ProofError(AssertionError):
    """A formula does not follow: what should have vanished is left over."""


@dataclass(frozen=True)
class Proof:
    """The statements that were proved, in order."""

    statements: tuple[str, ...] = field(default_factory=tuple)

    def and_also(self, statement: str, *differences: Any) -> Proof:
        """This proof with one statement more, if the differences of its sides all vanish.

        Raises
        ------
        ProofError
            If one does not; the message shows what is left over.
        """
        for difference in differences:
            remainder = sp.simplify(sp.together(sp.sympify(difference)))
            if remainder != 0:
                raise ProofError(f"not proved: {statement}; left over: {remainder}")
        return Proof((*self.statements, statement))


@dataclass(frozen=True)
class ClassMatrix:
    """identity·I + Σ pairs[a, b] · a bᵀ with a, b ∈ {"e", "1"}: a C × C matrix, C a symbol."""

    identity: Any
    pairs: dict[tuple[str, str], Any]

    def __add__(self, other: ClassMatrix) -> ClassMatrix:
        keys = {*self.pairs, *other.pairs}
        pairs = {key: self.pairs.get(key, 0) + other.pairs.get(key, 0) for key in keys}
        return ClassMatrix(self.identity + other.identity, pairs)

    def __rmul__(self, factor: Any) -> ClassMatrix:
        scaled = {key: factor * value for key, value in self.pairs.items()}
        return ClassMatrix(factor * self.identity, scaled)

    def apply(self, vector: dict[str, Any]) -> dict[str, Any]:
        """The image of a combination of "e", "1" and "v", v any vector orthogonal to both."""
        image = {key: self.identity * vector.get(key, 0) for key in ("e", "1", "v")}
        for (left, right), value in self.pairs.items():
            for key in ("e", "1"):
                image[left] += value * INNER[right, key] * vector.get(key, 0)
        return image

    @property
    def trace(self) -> Any:
        """The trace, with tr a bᵀ = ⟨a, b⟩."""
        pairs = self.pairs.items()
        return C * self.identity + sum(value * INNER[key] for key, value in pairs)

    def averaged_over_classes(self) -> ClassMatrix:
        """Ave over c with e = e_c: Ave e eᵀ = I/C, Ave e 1ᵀ = Ave 1 eᵀ = J/C, J and I stay."""
        ones = (
            self.pairs.get(("1", "1"), 0)
            + (self.pairs.get(("e", "1"), 0) + self.pairs.get(("1", "e"), 0)) / C
        )
        return ClassMatrix(self.identity + self.pairs.get(("e", "e"), 0) / C, {("1", "1"): ones})


def class_matrix() -> ClassMatrix:
    """U_c = diag p - p pᵀ with p = q 1 + (1 - α - q) e, q = α/(C-1); Papyan (2020) Def. 8.2."""
    q = symmetric.other_probability(C, alpha)
    p = {"1": q, "e": 1 - alpha - q}
    outer = {(a, b): -p[a] * p[b] for a in p for b in p}
    outer["e", "e"] += p["e"]
    return ClassMatrix(q, outer)


def prove_lemma_8_1() -> Proof:
    """Lemma 8.1 of Papyan (2020): E x xᵀ of class c is I_D + s e_c e_cᵀ, hence E G.

    With x_d = t [d = c] + z_d, entry by entry as Gaussian integrals; then
    E G = Ave_c (I_D + s e_c e_cᵀ) ⊗ U_c = I_D ⊗ Ū + (s/C) Σ_c e_c e_cᵀ ⊗ U_c by linearity.

    Raises
    ------
    ProofError
        If a statement does not follow.

    Examples
    --------
    >>> len(prove_lemma_8_1().statements)
    5
    """
    q = symmetric.other_probability(C, alpha)
    z = sp.Symbol("z", real=True)
    normal = sp.exp(-(z**2) / 2) / sp.sqrt(2 * sp.pi)

    def moment(mean: Any, power: int) -> Any:
        return sp.integrate(sp.expand((mean + z) ** power) * normal, (z, -sp.oo, sp.oo))

    return (
        Proof()
        .and_also("probabilities sum to one", 1 - alpha + (C - 1) * q - 1)
        .and_also("E x_c² = 1 + s in class c", moment(t, 2) - (1 + s))
        .and_also("E x_d² = 1 for d ≠ c", moment(0, 2) - 1)
        .and_also("E x_c x_d = 0 for d ≠ c", moment(t, 1) * moment(0, 1))
        .and_also("E x_d x_d' = 0 for c, d, d' different", moment(0, 1) ** 2)
    )


def prove_theorem_8_1() -> Proof:
    """Theorem 8.1 of Papyan (2020) for symbolic C, D, t and α.

    By Lemma 8.1, E G has C blocks B = (s/C) U_c + Ū and D-C blocks Ū. The proof gives each
    block's action on 1, on C e - 1 and on any v orthogonal to e and 1 (dimensions 1, 1, C-2),
    counts, and checks the trace against E G's own.

    Raises
    ------
    ProofError
        If a formula of :mod:`ccm.symmetric` is wrong; the message names the statement.

    Examples
    --------
    >>> print(prove_theorem_8_1().statements[-1])
    the trace is the sum of the eigenvalues
    """
    U = class_matrix()
    mean = U.averaged_over_classes()
    block = (s / C) * U + mean
    ones, star, rest = {"1": ONE}, {"e": C, "1": -ONE}, {"v": ONE}
    outliers = symmetric.outlier_eigenvalue(C, s, alpha)
    mini_bulk = symmetric.mini_bulk_eigenvalue(C, s, alpha)
    bulk = symmetric.bulk_eigenvalue(C, alpha)
    first, second = symmetric.class_eigenvalues(C, alpha)

    proof = prove_lemma_8_1()
    for name, matrix, vector, value in (
        ("U_c 1 = 0 (rank C-1)", U, ones, 0),
        ("U_c (C e - 1) = ℓ₁ (C e - 1)", U, star, first),
        ("U_c v = ℓ₂ v", U, rest, second),
        ("Ū 1 = 0", mean, ones, 0),
        ("Ū (C e - 1) = b (C e - 1)", mean, star, bulk),
        ("Ū v = b v", mean, rest, bulk),
        ("B 1 = 0", block, ones, 0),
        ("B (C e - 1) = outlier · (C e - 1)", block, star, outliers),
        ("B v = mini-bulk · v", block, rest, mini_bulk),
    ):
        image = matrix.apply(vector)
        proof = proof.and_also(name, *(image[k] - value * vector.get(k, 0) for k in image))

    count = symmetric.multiplicities(D, C)
    for name, group, expected in (
        ("one outlier a block, C blocks", "outliers", C),
        ("C-2 of the mini-bulk a block, C blocks", "mini-bulk", C * (C - 2)),
        ("C-1 of the bulk a block, D-C blocks", "bulk", (D - C) * (C - 1)),
        ("one zero a block, D blocks", "null", D),
    ):
        proof = proof.and_also(name, count[group] - expected)
    total = outliers * count["outliers"] + mini_bulk * count["mini-bulk"] + bulk * count["bulk"]
    return (
        proof.and_also("the multiplicities sum to D C", sum(count.values()) - D * C)
        .and_also(
            "b is the mean of U_c's eigenvalues on 1⊥", bulk - (first + (C - 2) * second) / (C - 1)
        )
        .and_also(
            "the trace is the sum of the eigenvalues",
            total - (C * block.trace + (D - C) * mean.trace),
        )
    )


def prove_finite_sample_law() -> Proof:
    """The algebra of level 2: τ, edges, cubic, cdf, isolated eigenvalues, and the limit N → ∞.

    Raises
    ------
    ProofError
        If a formula of :mod:`ccm.bulk_law` or :mod:`ccm.finite_sample` is wrong.

    Examples
    --------
    >>> print(prove_finite_sample_law().statements[-1])
    the mini-bulk tends to level 1 as N → ∞
    """
    y, z = sp.symbols("y z")
    tau, delta, l1, l2, w1 = sp.symbols("tau delta ell1 ell2 w1", positive=True)
    ells, weights = (l1, l2), (w1, 1 - w1)

    def k(y: Any) -> Any:
        return sum(w * ell / (1 + delta * y * ell) for w, ell in zip(weights, ells, strict=True))

    image = bulk_law.spectral_map(tau, delta, ells, weights)
    y_of_tau = -1 / (delta * tau)
    powers = bulk_law.cubic(z, delta, ells, weights)
    polynomial = sum(part * tau ** (3 - i) for i, part in enumerate(powers))
    logs = sum(w * sp.log(1 + delta * y * ell) for w, ell in zip(weights, ells, strict=True))
    primitive = y * k(y) + sp.log(y) - logs / delta
    y_spike = -1 / (delta * finite_sample.spike(l1, C, s, delta))
    proof = (
        Proof()
        .and_also("z(τ) solves 1/y = k(y) - z", 1 / y_of_tau - k(y_of_tau) + image)
        .and_also(
            "dz/dτ = δ - f(τ)",
            sp.diff(image, tau) - delta + bulk_law.stretch(tau, ells, weights),
        )
        .and_also("the cubic is z(τ) = z", polynomial - (image - z) * (tau - l1) * (tau - l2))
        .and_also("the cdf's primitive", sp.diff(primitive, y) - y * sp.diff(k(y) - 1 / y, y))
        .and_also(
            "isolated: 1/y + (s/C) ℓ/(1 + δyℓ) = 0",
            1 / y_spike + s / C * l1 / (1 + delta * y_spike * l1),
        )
        .and_also(
            "the law's mean is Σ w ℓ",
            sp.limit(-image * (1 + image * y_of_tau), tau, sp.oo) - w1 * l1 - (1 - w1) * l2,
        )
    )
    first, second = symmetric.class_eigenvalues(C, alpha)
    actual = (1 / (C - 1), (C - 2) / (C - 1))
    for name, ell, value in (
        ("the outliers tend to level 1 as N → ∞", first, symmetric.outlier_eigenvalue),
        ("the mini-bulk tends to level 1 as N → ∞", second, symmetric.mini_bulk_eigenvalue),
    ):
        spike = finite_sample.spike(ell, C, s, delta)
        location = sp.cancel(bulk_law.spectral_map(spike, delta, (first, second), actual))
        proof = proof.and_also(name, location.subs(delta, 0) - value(C, s, alpha))
    return proof
