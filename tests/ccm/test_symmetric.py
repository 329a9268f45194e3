"""Level 1: Lemma 8.1 by definition, Theorem 8.1 against dense eigenvalues, and its proof."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccm import (
    CanonicalClassificationModel,
    symmetric,
    symmetric_fim,
    symmetric_probabilities,
    symmetric_spectrum,
)
from ccm.symbolic import ProofError, prove_theorem_8_1


@st.composite
def cases(draw: st.DrawFn) -> tuple[CanonicalClassificationModel, float]:
    C = draw(st.integers(2, 7))
    model = CanonicalClassificationModel(C + draw(st.integers(0, 6)), C, draw(st.floats(0, 8)))
    return model, draw(st.floats(0, 1)) * (1 - 1 / C)


def fim_by_definition(model: CanonicalClassificationModel, alpha: float) -> np.ndarray:
    """Entry by entry: Ave_c E[x_d x_d' | c] (p_a [a = b] - p_a p_b)."""
    D, C = model.dim, model.num_classes
    fim = np.zeros((D, C, D, C))
    for c in range(C):
        p = [1 - alpha if a == c else alpha / (C - 1) for a in range(C)]
        for d in range(D):
            for e in range(D):
                second = (d == e) + model.snr**2 * (d == e == c)
                for a in range(C):
                    for b in range(C):
                        fim[d, a, e, b] += second * (p[a] * (a == b) - p[a] * p[b]) / C
    return fim.reshape(D * C, D * C)


@pytest.mark.parametrize("arguments", [(2, 2, 0.0, 0.5), (4, 3, 2.0, 0.3), (5, 4, 3.0, 0.75)])
def test_lemma_8_1_by_definition(arguments: tuple[int, int, float, float]) -> None:
    model, alpha = CanonicalClassificationModel(*arguments[:3]), arguments[3]
    expected = fim_by_definition(model, alpha)
    np.testing.assert_allclose(symmetric_fim(model, alpha), expected, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_theorem_8_1_against_dense(case: tuple[CanonicalClassificationModel, float]) -> None:
    model, alpha = case
    fim = symmetric_fim(model, alpha)
    spectrum = symmetric_spectrum(model, alpha)
    scale = 1 + model.signal
    dense = np.linalg.eigvalsh(fim)[::-1]
    np.testing.assert_allclose(spectrum.eigenvalues, dense, rtol=0, atol=1e-12 * scale)
    assert spectrum.size == model.size
    assert spectrum.trace == pytest.approx(np.trace(fim), rel=1e-12, abs=1e-14)


@settings(max_examples=20, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_permuting_classes_changes_nothing(
    case: tuple[CanonicalClassificationModel, float], random: Any
) -> None:
    model, alpha = case
    classes = list(range(model.num_classes))
    random.shuffle(classes)
    coordinates = [*classes, *range(model.num_classes, model.dim)]
    fim = symmetric_fim(model, alpha).reshape((model.dim, model.num_classes) * 2)
    permuted = fim[np.ix_(coordinates, classes, coordinates, classes)]
    np.testing.assert_allclose(permuted, fim, atol=1e-13 * (1 + model.signal))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 50), st.floats(0, 1))
def test_class_eigenvalues(C: int, share: float) -> None:
    alpha = share * (1 - 1 / C)
    p = symmetric_probabilities(C, alpha)[0]
    first, second = symmetric.class_eigenvalues(C, alpha)
    expected = sorted([0.0, first, *[second] * (C - 2)])
    dense = np.linalg.eigvalsh(np.diag(p) - np.outer(p, p))
    np.testing.assert_allclose(dense, expected, atol=1e-14)


@pytest.mark.parametrize("C", [2, 3, 10])
def test_alpha_at_both_ends(C: int) -> None:
    model = CanonicalClassificationModel(C + 3, C, 2.0)
    assert not symmetric_spectrum(model, 0.0).eigenvalues.any()
    top = symmetric_spectrum(model, 1 - 1 / C)
    assert top.level("bulk").value == pytest.approx(1 / C)


def test_groups_without_eigenvalues_are_left_out() -> None:
    labels = [
        lv.label for lv in symmetric_spectrum(CanonicalClassificationModel(2, 2, 1), 0.2).levels
    ]
    assert labels == ["outliers", "null"]


@pytest.mark.parametrize("alpha", [-0.1, 0.8, np.nan, np.inf])
def test_alpha_out_of_range(alpha: float) -> None:
    model = CanonicalClassificationModel(5, 4, 1.0)
    with pytest.raises(ValueError, match=r"from 0 to 1 - 1/C = 0.75"):
        symmetric_spectrum(model, alpha)
    with pytest.raises(ValueError, match=r"from 0 to 1 - 1/C = 0.75"):
        symmetric_fim(model, alpha)


def test_alpha_is_a_number() -> None:
    with pytest.raises(TypeError, match="alpha must be a number"):
        symmetric_spectrum(CanonicalClassificationModel(5, 4, 1.0), "small")


def test_the_theorem_is_proved() -> None:
    statements = prove_theorem_8_1().statements
    assert "B (C e - 1) = outlier · (C e - 1)" in statements
    assert "B v = mini-bulk · v" in statements


MUTANTS = {
    "outlier_eigenvalue": lambda C, s, alpha: alpha * s / (C - 1),
    "mini_bulk_eigenvalue": lambda C, s, alpha: alpha * s / C**2,
    "bulk_eigenvalue": lambda C, alpha: alpha / (C - 1),
    "class_eigenvalues": lambda C, alpha: (alpha * (1 - alpha), alpha / (C - 1)),
    "other_probability": lambda C, alpha: alpha / C,
    "multiplicities": lambda D, C: {
        "outliers": C - 1,
        "mini-bulk": C * (C - 2) + 1,
        "bulk": (D - C) * (C - 1),
        "null": D,
    },
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_proof_fails_when_a_formula_is_changed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symmetric, name, MUTANTS[name])
    with pytest.raises(ProofError, match="not proved"):
        prove_theorem_8_1()
