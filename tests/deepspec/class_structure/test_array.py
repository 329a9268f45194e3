"""An array's parts, spectra and knockouts, against dense matrices by definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import deepspec
from tests import oracles
from tests.cases import CASES

PARTS = ("global_mean", "between_class", "cross_class", "within_class", "own_class")


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_loops(vectors: Tensor, labels: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """The parts of Σ w v vᵀ, mean by mean; class C − 1 may be empty."""
    shaped = vectors if vectors.ndim == 3 else vectors[:, None]
    weights = weights.reshape(shaped.shape[:2])
    n, K, d = shaped.shape
    classes = K if vectors.ndim == 3 else int(labels.max()) + 1
    zero = torch.zeros(d, d, dtype=torch.float64)
    parts = {name: zero.clone() for name in PARTS}
    total, everything = torch.zeros(d, dtype=torch.float64), 0.0
    for c in range(classes):
        cells = {}
        for other in range(K):
            inside = [i for i in range(n) if int(labels[i]) == c and weights[i, other] > 0]
            weight = float(sum(weights[i, other] for i in inside))
            if not weight:
                continue
            mean = sum(weights[i, other] * shaped[i, other] for i in inside) / weight
            cells[other] = (weight, mean)
            for i in inside:
                off = shaped[i, other] - mean
                parts["within_class"] += weights[i, other] * torch.outer(off, off)
        own = cells.pop(c, None) if vectors.ndim == 3 else None
        if own is not None:
            parts["own_class"] += own[0] * torch.outer(own[1], own[1])
        row = sum(weight for weight, _ in cells.values())
        if not cells:
            continue
        mean = sum(weight * m for weight, m in cells.values()) / row
        parts["between_class"] += row * torch.outer(mean, mean)
        for weight, m in cells.values():
            parts["cross_class"] += weight * torch.outer(m - mean, m - mean)
        total, everything = total + row * mean, everything + row
    parts["global_mean"] = torch.outer(total, total) / everything
    return parts


def descending(matrix: Tensor) -> Tensor:
    return torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)


def alike(found: Tensor, expected: Tensor, scale: float) -> bool:
    """Two lists of eigenvalues, the shorter filled up with zeros."""
    size = max(len(found), len(expected))
    pad = torch.nn.functional.pad
    difference = pad(found, (0, size - len(found))) - pad(expected, (0, size - len(expected)))
    return float(difference.abs().max()) <= 1e-10 * scale


LABELS = torch.tensor([0, 0, 1, 1, 1, 3, 3, 0])  # class 2 is empty
SHAPES = {
    "features": (8, 5),
    "wide features": (8, 40),
    "cross-classes": (8, 4, 6),
    "long cross-classes": (8, 4, 50),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_everything_of_an_array_by_definition(shape: tuple[int, ...], weighted: bool) -> None:
    vectors = normal(*shape) + 0.5 * normal(shape[-1], seed=1)
    weights = torch.full(shape[:-1], 1 / 8, dtype=torch.float64)
    if weighted:
        weights = normal(*shape[:-1], seed=2).square()
        weights[2] = 0.0
    array = deepspec.ClassArray(vectors, LABELS, weights)
    expected = by_loops(vectors, LABELS, weights)
    rows = weights.sqrt()[..., None] * vectors
    V = rows.flatten(0, -2).T @ rows.flatten(0, -2)
    scale = float(descending(V)[0])
    assert float((array.second_moment.to_dense() - V).abs().max()) < 1e-12 * scale
    assert alike(array.eigenvalues(), descending(V), scale)
    summed = sum(expected[name] for name in PARTS[1:])
    assert float((summed - V).abs().max()) < 1e-12 * scale
    for name in PARTS:
        B = expected[name]
        assert float((array.parts[name].to_dense() - B).abs().max()) < 1e-12 * scale, name
        assert alike(array.eigenvalues(name), descending(B), scale), name
        assert alike(array.knock_out(name), descending(V - B), scale), name
        keep = torch.eye(len(V)).double() - B @ torch.linalg.pinv(B, rtol=1e-11)
        left = array.knock_out(name, how="projection")
        assert alike(left, descending(keep @ V @ keep), 1e2 * scale), name


@pytest.mark.parametrize("convention", ["jmlr2020", "icml2019"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_are_an_array(case: object, convention: str) -> None:
    model, features, labels = case.build()
    problem = deepspec.Problem(model, (features, labels), num_classes=case.num_classes)
    array = deepspec.gradients(problem, convention)
    G = oracles.gauss_newton(model, features)
    scale = float(descending(G)[0])
    assert alike(array.eigenvalues(), descending(G).clamp_min(0), scale)
    for name, B in oracles.parts_of_g(model, features, labels, convention).items():
        assert alike(array.eigenvalues(name), descending(B), scale), name
        assert alike(array.knock_out(name), descending(G - B), scale), name


def test_an_array_of_embeddings_is_attributed() -> None:
    labels = torch.arange(4).repeat(20)
    centres = 6 * torch.eye(4, 30, dtype=torch.float64)
    vectors = centres[labels] + 0.3 * normal(80, 30)
    found = deepspec.attribute(deepspec.ClassArray(vectors, labels), draws=5)
    assert found.train.finding("outliers").answer == "supported"
    assert found.train.finding("mini-bulk").answer == "not decided"
    assert found.train.alignment is None
    assert "no Hessian" in found.train.without_hessian
    assert "class means" in found.summary()


TWO, LABELLED = torch.ones(2, 2), torch.tensor([0, 1])
BAD = {
    "expected tensors": ([[1.0]], torch.tensor([0]), None, TypeError),
    "expected float32 or float64": (torch.ones(2, 2).long(), torch.tensor([0, 1]), None, TypeError),
    r"expected vectors of shape \(n, d\)": (torch.ones(2), torch.tensor([0, 1]), None, ValueError),
    "expected 2 whole labels": (torch.ones(2, 2), torch.tensor([0.0, 1.0]), None, ValueError),
    r"expected labels in 0\.\.1": (torch.ones(2, 2, 3), torch.tensor([0, 2]), None, ValueError),
    "expected weights of shape": (
        torch.ones(2, 2),
        torch.tensor([0, 1]),
        torch.ones(3),
        ValueError,
    ),
    "at least 0": (TWO, LABELLED, -torch.ones(2), ValueError),
    "some weight above 0": (TWO, LABELLED, torch.zeros(2), ValueError),
    "finite vectors": (torch.full((2, 2), torch.nan), torch.tensor([0, 1]), None, ValueError),
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_no_array_is_refused(words: str) -> None:
    vectors, labels, weights, kind = BAD[words]
    with pytest.raises(kind, match=words):
        deepspec.ClassArray(vectors, labels, weights)


def test_unknown_parts_and_ways_are_named() -> None:
    array = deepspec.ClassArray(normal(6, 3), torch.arange(3).repeat(2))
    with pytest.raises(ValueError, match=r"expected a part, one of .*between_class.* got 'bulk'"):
        array.eigenvalues("bulk")
    with pytest.raises(ValueError, match=r'expected how="subtraction" or "projection"'):
        array.knock_out("between_class", how="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="made of means"):
        array.mean_gram("within_class")


def test_what_does_not_fit_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepspec.class_structure.rows.free_memory", lambda device: 1000)
    array = deepspec.ClassArray(normal(60, 30), torch.arange(3).repeat(20))
    with pytest.raises(MemoryError, match=r"about 4 rows .* would fit"):
        array.eigenvalues()


def test_parts_keep_their_own_digits_near_perfect_fits() -> None:
    """Each part relative to itself, against the same with 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    from deepspec.classifier.softmax import mean_minus_each_transposed

    for exponent in (3, 8, 16, 26, 60):
        small = [10.0**-exponent, 3 * 10.0 ** -(exponent + 2)]
        p = torch.tensor([[1.0 - sum(small), *small]], dtype=torch.float64)
        a = torch.tensor([[[0.7], [-1.3], [2.1]]], dtype=torch.float64)
        found = mean_minus_each_transposed(p, a)[0, :, 0]
        with mpmath.workdps(90):
            others = [mpmath.mpf(float(x)) for x in p[0, 1:]]
            exact = [1 - sum(others), *others]
            amounts = [mpmath.mpf(float(x)) for x in a[0, :, 0]]
            total = sum(amounts)
            expected = [q * total - b for q, b in zip(exact, amounts, strict=True)]
            for ours, theirs in zip(found.tolist(), expected, strict=True):
                assert abs(mpmath.mpf(ours) - theirs) <= 1e-14 * abs(theirs)


@pytest.mark.parametrize("stretch", [1, 5, 7, 1000])
def test_the_gram_matrix_of_gradients_is_formed_in_place(
    stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, features, labels = CASES[1].build()
    array = deepspec.gradients(deepspec.Problem(model, (features, labels), num_classes=4))
    monkeypatch.setattr("deepspec.class_structure.rows.ROWS_AT_ONCE", stretch)
    S, D = array.rows.gram(), array.rows.dense()
    assert torch.equal(S, S.T)
    assert float((S - D @ D.T).abs().max()) < 1e-13 * float(S.abs().max())
