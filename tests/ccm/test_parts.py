"""Near perfect fits every part keeps its digits, each relative to itself, against 60 digits."""

from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import softmax

import ccm
from ccm.parts import coefficients

SAMPLES, CLASSES, DIM = 9, 3, 4
Vector = list[Any]


def images(X: np.ndarray, y: np.ndarray, logits: np.ndarray, v: np.ndarray) -> dict[str, Vector]:
    """Each part times v by the definition of g_{i,c'}, cell by cell, in 60 digits."""
    n, C = logits.shape
    g: dict[tuple[int, int], Vector] = {}
    w: dict[tuple[int, int], Any] = {}
    for i in range(n):
        powers = [mpmath.e ** mpmath.mpf(float(f)) for f in logits[i]]
        p = [power / sum(powers) for power in powers]
        for c in range(C):
            w[i, c] = p[c] / n
            slope = [p[k] - (1 if k == c else 0) for k in range(C)]
            g[i, c] = [mpmath.mpf(float(x)) * s for x in X[i] for s in slope]
    size = len(v)
    direction = [mpmath.mpf(float(x)) for x in v]

    def mean(terms: list[tuple[Any, Vector]]) -> tuple[Any, Vector]:
        total = sum(weight for weight, _ in terms)
        return total, [sum(a * u[j] for a, u in terms) / total for j in range(size)]

    def image(terms: list[tuple[Any, Vector]]) -> Vector:
        along = [a * sum(x * z for x, z in zip(u, direction, strict=True)) for a, u in terms]
        return [sum(a * u[j] for a, (_, u) in zip(along, terms, strict=True)) for j in range(size)]

    def less(u: Vector, m: Vector) -> Vector:
        return [x - z for x, z in zip(u, m, strict=True)]

    members = {c: [i for i in range(n) if y[i] == c] for c in range(C)}
    cells = {
        (c, d): mean([(w[i, d], g[i, d]) for i in members[c]]) for c in members for d in members
    }
    classes = {c: mean([cells[c, d] for d in members if d != c]) for c in members}
    cross = [
        (cells[c, d][0], less(cells[c, d][1], classes[c][1]))
        for c in members
        for d in members
        if d != c
    ]
    within = [(w[i, d], less(g[i, d], cells[int(y[i]), d][1])) for i in range(n) for d in members]
    return {
        "between_class": image(list(classes.values())),
        "cross_class": image(cross),
        "within_class": image(within),
        "own_class": image([cells[c, c] for c in members]),
    }


@pytest.mark.parametrize("sharpness", [1.0, 8.0, 18.0, 40.0, 75.0])
def test_parts_near_a_perfect_fit(sharpness: float) -> None:
    """Losses from 0.3 down to 1e-32."""
    rng = np.random.default_rng(0)
    X, v = rng.standard_normal((SAMPLES, DIM)), rng.standard_normal(DIM * CLASSES)
    y = np.arange(SAMPLES) % CLASSES
    logits = sharpness * (np.eye(CLASSES)[y] + 0.02 * rng.standard_normal((SAMPLES, CLASSES)))
    with mpmath.workdps(60):
        expected = images(X, y, logits, v)
    parts = ccm.class_structure(X, y, softmax(logits, axis=1)).parts
    for name, part in parts.items():
        reference = np.array([float(value) for value in expected[name]])
        error = np.abs(part @ v - reference).max() / np.abs(reference).max()
        assert error < 2e-13, (name, error)


def test_the_transpose_is_one() -> None:
    rng = np.random.default_rng(1)
    p = softmax(3 * rng.standard_normal((5, 4)), axis=1)
    u, a = rng.standard_normal((2, 5, 4, 2))
    d = (p[:, :, None] * u).sum(axis=1, keepdims=True) - u
    np.testing.assert_allclose(
        (d * a).sum(axis=1), (u * coefficients(p, a)).sum(axis=1), atol=1e-13
    )
