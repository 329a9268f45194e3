"""Level 2: the law against its defining equation, against level 1, and against simulation."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from ccm import (
    CanonicalClassificationModel,
    FiniteSampleLaw,
    bulk_law,
    finite_sample,
    finite_sample_law,
    symmetric_probabilities,
    symmetric_spectrum,
)
from ccm.symbolic import ProofError, prove_finite_sample_law
from ccm.symmetric import bulk_eigenvalue, class_eigenvalues


@st.composite
def laws(draw: st.DrawFn) -> FiniteSampleLaw:
    """Every regime: C = 2 and 3, t = 0, D = C, α at its ends, few samples and many."""
    C = draw(st.integers(2, 12))
    model = CanonicalClassificationModel(
        C + draw(st.integers(0, 300)), C, draw(st.one_of(st.just(0.0), st.floats(0.1, 8)))
    )
    share = draw(st.one_of(st.just(1.0), st.floats(0.01, 1)))
    return finite_sample_law(model, share * (1 - 1 / C), draw(st.integers(1, 400)))


def integral(law: FiniteSampleLaw, power: int) -> float:
    """∫ x^power dlaw by quadrature of the density, in an angle that removes the square roots."""
    total = law.atom_at_zero if power == 0 else 0.0
    for low, high in law.edges:
        middle, half = (low + high) / 2, (high - low) / 2

        def integrand(angle: float, middle: float = middle, half: float = half) -> float:
            x = middle - half * math.cos(angle)
            return x**power * float(law.density(x)) * half * math.sin(angle)

        total += quad(integrand, 0, math.pi, epsabs=1e-11, epsrel=1e-11, limit=400)[0]
    return total


@settings(max_examples=25, deadline=None)
@given(laws())
def test_mass_is_one_and_the_mean_is_level_1(law: FiniteSampleLaw) -> None:
    if abs(law.delta - 1) < 0.02:  # the density all but diverges at 0: see the hard-edge test
        return
    assert integral(law, 0) == pytest.approx(1, abs=1e-8)
    bulk = bulk_eigenvalue(law.model.num_classes, law.alpha)
    assert integral(law, 1) == pytest.approx(bulk, rel=1e-8)


def test_the_hard_edge_at_as_many_samples_as_coordinates() -> None:
    law = finite_sample_law(CanonicalClassificationModel(30, 3, 1.0), 0.4, per_class=10)
    assert law.edges[0, 0] == 0
    assert law.density(0.0) == np.inf
    assert law.cdf(0.0) == 0
    assert integral(law, 1) == pytest.approx(bulk_eigenvalue(3, 0.4), rel=1e-8)


@settings(max_examples=25, deadline=None)
@given(laws(), st.floats(0.02, 0.98))
def test_the_cdf_is_the_density_s_integral(law: FiniteSampleLaw, share: float) -> None:
    for low, high in law.edges:
        x = low + share * (high - low)
        step = 1e-4 * min(x - low, high - x)
        slope = (law.cdf(x + step) - law.cdf(x - step)) / (2 * step)
        assert slope == pytest.approx(float(law.density(x)), rel=1e-5)
        assert law.cdf(low) <= law.cdf(x) <= law.cdf(high)
    assert law.cdf(law.edges[0, 0]) == pytest.approx(law.atom_at_zero, abs=1e-8)
    assert law.cdf(law.edges[-1, 1]) == pytest.approx(1, abs=1e-8)
    assert law.cdf(-1e-9) == 0


@settings(max_examples=40, deadline=None)
@given(laws())
def test_edges_are_where_the_density_begins(law: FiniteSampleLaw) -> None:
    edges = law.edges.ravel()
    assert (np.diff(edges) > 0).all()
    for low, high in law.edges:
        width = 1e-7 * (high - low)
        assert law.density(low + width) > 0
        assert law.density(high - width) > 0
        assert law.density(low - width) == 0
        assert law.density(high + width) == 0


def density_by_definition(law: FiniteSampleLaw, x: float) -> float:
    """Im y/π from 1/y = k(y) - x, all polynomial roots in 60 digits, with no change of variable."""
    with mpmath.workdps(60):
        C = law.model.num_classes
        a, delta = mpmath.mpf(law.alpha), mpmath.mpf(law.model.dim) / (law.per_class * C)
        l1, l2 = a * (1 - a) * C / (C - 1), a / (C - 1)
        p, q, w1 = delta * l1, delta * l2, mpmath.mpf(1) / (C - 1)
        w2, z = 1 - w1, mpmath.mpf(x)
        # (1 + py)(1 + qy) = y [w1 l1 (1 + qy) + w2 l2 (1 + py)] - z y (1 + py)(1 + qy)
        cubic = [z * p * q, p * q + z * (p + q) - w1 * l1 * q - w2 * l2 * p]
        cubic += [p + q + z - w1 * l1 - w2 * l2, mpmath.mpf(1)]
        roots = mpmath.polyroots(cubic, maxsteps=500, extraprec=400)
        return float(max(root.imag for root in roots) / mpmath.pi)


@pytest.mark.parametrize(
    "case",
    [
        (200, 4, 100, 0.3),
        (200, 10, 10, 0.3),
        (20, 10, 20000, 0.3),
        (10, 10, 1, 0.9),
        (10, 10, 1, 0.5),
        (2000, 3, 1, 0.01),
        (50, 2, 7, 0.3),
        (800, 5, 8, 0.1),
    ],
)
def test_density_in_sixty_digits(case: tuple[int, int, int, float]) -> None:
    D, C, N, alpha = case
    law = finite_sample_law(CanonicalClassificationModel(D, C, 1.0), alpha, N)
    for low, high in law.edges:
        for share in (1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6):
            x = float(low + share * (high - low))
            assert float(law.density(x)) == pytest.approx(density_by_definition(law, x), abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(laws())
def test_many_samples_give_level_1(law: FiniteSampleLaw) -> None:
    model = law.model
    many = finite_sample_law(model, law.alpha, 10**10)
    theory = symmetric_spectrum(model, law.alpha)
    bulk = bulk_eigenvalue(model.num_classes, law.alpha)
    assert many.edges == pytest.approx(bulk, rel=2e-3)
    for label in ("outliers", "mini-bulk")[: 1 if model.num_classes == 2 else 2]:
        location = many.location(label)
        if model.snr > 0:
            assert location == pytest.approx(theory.level(label).value, rel=1e-4)
        else:
            assert location is None


@settings(max_examples=25, deadline=None)
@given(laws())
def test_groups_detach_at_their_critical_snr(law: FiniteSampleLaw) -> None:
    top = law.edges[-1, 1]
    for label in ("outliers", "mini-bulk")[: 1 if law.model.num_classes == 2 else 2]:
        critical = law.critical_snr(label)
        for factor, detached in ((1.001, True), (0.999, False)):
            model = CanonicalClassificationModel(
                law.model.dim, law.model.num_classes, critical * factor
            )
            location = finite_sample_law(model, law.alpha, law.per_class).location(label)
            if detached:
                assert location is not None
                assert location == pytest.approx(top, rel=1e-3)
                assert location > top
            else:
                assert location is None or location < law.edges[-1, 0]


def simulated(law: FiniteSampleLaw, seed: int) -> np.ndarray:
    """The D(C-1) eigenvalues that are not structurally zero, of one sampled FIM, ascending."""
    model, C = law.model, law.model.num_classes
    X, y = model.sample(law.per_class, seed)
    rows = []
    for c, p in enumerate(symmetric_probabilities(C, law.alpha)):
        values, vectors = np.linalg.eigh(np.diag(p) - np.outer(p, p))
        factor = vectors[:, 1:] * np.sqrt(values[1:])
        rows.append(np.einsum("nd,ca->nadc", X[y == c], factor).reshape(-1, model.size))
    half = np.concatenate(rows) / math.sqrt(y.size)
    gram = half @ half.T if half.shape[0] < half.shape[1] else half.T @ half
    values = np.linalg.eigvalsh(gram)
    count = model.dim * (C - 1)
    return np.sort(np.concatenate([values, np.zeros(max(0, count - values.size))]))[-count:]


def test_simulated_bulk_and_outliers() -> None:
    law = finite_sample_law(CanonicalClassificationModel(200, 4, 3.0), 0.3, per_class=100)
    values = simulated(law, 0)
    ranks = (np.arange(values.size) + 0.5) / values.size
    assert np.abs(law.cdf(values) - ranks).max() < 0.02
    location = law.location("outliers")
    assert location == pytest.approx(0.95537, abs=1e-5)
    assert values[-4:].mean() == pytest.approx(location, rel=0.03)
    level_1 = symmetric_spectrum(law.model, 0.3).level("outliers").value
    assert level_1 < 0.85 * values[-4:].mean()


def test_the_mini_bulk_in_the_gap_of_a_split_bulk() -> None:
    """Where a condition 1 + δyℓ₁ > 0 would call it absorbed: all C(C-2) are there."""
    law = finite_sample_law(CanonicalClassificationModel(800, 5, 12.0), 0.1, per_class=8)
    (_, gap_low), (gap_high, _) = law.edges
    location = law.location("mini-bulk")
    assert gap_low < location < gap_high
    values = simulated(law, 1)
    margin = 0.05 * (gap_high - gap_low)
    inside = values[(values > gap_low + margin) & (values < gap_high - margin)]
    assert inside.size == 15
    assert inside.mean() == pytest.approx(location, rel=0.06)
    share_above = (values > gap_high - margin).mean()
    assert 1 - law.cdf((gap_low + gap_high) / 2) == pytest.approx(share_above, abs=5 / 3200)


def test_without_wrong_probabilities_everything_is_zero() -> None:
    law = finite_sample_law(CanonicalClassificationModel(6, 3, 2.0), 0.0, 5)
    assert law.edges.shape == (0, 2)
    assert law.atom_at_zero == 1
    np.testing.assert_array_equal(law.cdf(np.array([-1.0, 0.0, 1.0])), [0, 1, 1])
    assert law.density(0.5) == 0
    assert law.location("outliers") is None
    assert law.critical_snr("mini-bulk") == math.inf


def test_shapes_are_kept() -> None:
    law = finite_sample_law(CanonicalClassificationModel(6, 3, 2.0), 0.2, 5)
    assert law.density(np.zeros((2, 3))).shape == (2, 3)
    assert law.cdf(np.zeros((2, 3))).shape == (2, 3)


def test_bad_input() -> None:
    model = CanonicalClassificationModel(6, 3, 2.0)
    law = finite_sample_law(model, 0.2, 5)
    with pytest.raises(ValueError, match="unknown group 'bulk'; the law locates outliers and mini"):
        law.location("bulk")
    with pytest.raises(ValueError, match="unknown group"):
        law.critical_snr("outlier")
    with pytest.raises(ValueError, match="2 classes there is no mini-bulk"):
        finite_sample_law(CanonicalClassificationModel(6, 2, 2.0), 0.2, 5).location("mini-bulk")
    for x in (np.nan, np.inf, 1j, "one"):
        with pytest.raises(ValueError, match="x must be real and finite"):
            law.density(x)
        with pytest.raises(ValueError, match="x must be real and finite"):
            law.cdf(x)
    with pytest.raises(ValueError, match="per_class must be at least 1"):
        finite_sample_law(model, 0.2, 0)
    with pytest.raises(TypeError, match="per_class must be an integer"):
        finite_sample_law(model, 0.2, 2.5)
    with pytest.raises(ValueError, match="alpha"):
        finite_sample_law(model, 0.7, 5)


@settings(max_examples=20, deadline=None)
@given(laws())
def test_the_formulas_are_the_definition(law: FiniteSampleLaw) -> None:
    """The isolated eigenvalue solves the equation as derived, in y."""
    C, s = law.model.num_classes, law.model.signal
    ells = class_eigenvalues(C, law.alpha)
    location = law.location("outliers")
    if location is None:
        return
    y = -1 / (ells[0] * (law.delta + s / C))
    weights = (1 / (C - 1), (C - 2) / (C - 1))
    k = sum(w * ell / (1 + law.delta * y * ell) for w, ell in zip(weights, ells, strict=True))
    assert location == pytest.approx(k - 1 / y, rel=1e-10)


MUTANTS = [
    (bulk_law, "spectral_map", lambda tau, delta, ells, w: tau * (delta + ells[0] / tau)),
    (bulk_law, "stretch", lambda tau, delta, ells: 1 / tau),
    (bulk_law, "cubic", lambda z, delta, ells, w: (delta, z, 1, 1)),
    (finite_sample, "spike", lambda ell, C, s, delta: ell * (1 + s / delta)),
]


@pytest.mark.parametrize(("module", "name", "mutant"), MUTANTS)
def test_the_proof_fails_when_a_formula_is_changed(
    module: object, name: str, mutant: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises(ProofError, match="not proved"):
        prove_finite_sample_law()


def test_the_cdf_at_the_very_edges() -> None:
    """Where rounding makes all roots real: the plateaus on either side, and no jump."""
    law = finite_sample_law(CanonicalClassificationModel(271, 10, 1.0), 1e-8, per_class=39)
    (first, second), gap = law.edges, 1 - 1 / (9 * law.delta)
    for edge, value in zip([*first, *second], [0.0, gap, gap, 1.0], strict=True):
        for x in (np.nextafter(edge, 0), edge, np.nextafter(edge, 1)):
            assert law.cdf(x) == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("x", [1e-300, 1e-40, 1e-20, 1e-12, 1e-6])
def test_the_density_close_to_the_hard_edge(x: float) -> None:
    """δ = 1: near 0 the density is (Σ w/ℓ)^½ / (π √x), to leading order."""
    law = finite_sample_law(CanonicalClassificationModel(30, 3, 1.0), 0.4, per_class=10)
    first, second = class_eigenvalues(3, 0.4)
    slope = math.sqrt(0.5 / first + 0.5 / second) / math.pi
    assert law.density(x) * math.sqrt(x) == pytest.approx(slope, rel=1e-4)
    assert law.cdf(x) == pytest.approx(2 * slope * math.sqrt(x), rel=1e-4, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(laws())
def test_nothing_breaks_at_the_very_edges(law: FiniteSampleLaw) -> None:
    for edge in law.edges.ravel():
        for x in (np.nextafter(edge, 0), edge, np.nextafter(edge, 9)):
            assert law.density(x) >= 0
            assert 0 <= law.cdf(x) <= 1
