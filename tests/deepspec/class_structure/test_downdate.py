"""Knockouts in the coordinates of S's eigenvectors, against dense matrices by definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import deepspec
from deepspec.attribution import knockouts
from deepspec.attribution.knockouts import top_of
from deepspec.class_structure import downdate
from deepspec.class_structure.downdate import Downdate, knocked_out
from deepspec.class_structure.gram import MatrixGram, restore_gram
from deepspec.class_structure.known_nulls import OffKnownNulls
from deepspec.class_structure.parts import PARTS, MeanPart
from tests.cases import CASES


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def downdated(size: int, rank: int) -> Downdate:
    """Λ − F Fᵀ with F = Λ^½ times a short isometry, so that it is positive semidefinite."""
    values = normal(size).square().sort(descending=True).values
    basis = torch.linalg.qr(normal(size, rank, seed=1)).Q
    return Downdate(values, values.sqrt()[:, None] * basis)


@pytest.mark.parametrize("how", ["subtraction", "projection"])
@pytest.mark.parametrize("shape", [(12, 3, 40), (12, 3, 7)], ids=["more entries", "more rows"])
def test_a_knockout_by_eigenpairs_is_the_knockout(shape: tuple[int, ...], how: str) -> None:
    array = deepspec.ClassArray(normal(*shape), torch.arange(3).repeat(4))
    for name in PARTS:
        part = array.projector(name)
        if not isinstance(part, MeanPart):
            continue
        left = knocked_out(array.gram, part.basis, how)
        expected = array.knock_out(name, how=how)
        found = left.eigenvalues()
        scale = float(array.gram.eigenvalues[0])
        padded = torch.nn.functional.pad(expected, (0, len(found) - len(expected)))
        assert float((found - padded).abs().max()) < 1e-10 * scale, name
        assert left.size == min(shape[0] * shape[1], shape[2])


def test_a_part_of_next_to_no_weight_still_has_its_directions() -> None:
    """Off means whose weights are 1e-147 and less of G's: their directions, not their lengths."""
    torch.manual_seed(1)
    inputs = normal(12, 4)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
    ).double()
    with torch.no_grad():
        net[2].weight *= 3000.0
    labels = net(inputs).argmax(dim=1)
    array = deepspec.gradients(deepspec.Problem(net, (inputs, labels)))
    basis = array.projector("cross_class").basis
    means = array.rows.rmatmul(basis)
    assert float(means.norm(dim=0).min()) < 1e-30
    span = torch.linalg.qr(means / means.norm(dim=0)).Q
    whole = array.second_moment.to_dense()
    off = torch.eye(len(whole), dtype=torch.float64) - span @ span.T
    expected = torch.linalg.eigvalsh(off @ whole @ off).flip(0)
    for found in (
        array.knock_out("cross_class", how="projection"),
        knocked_out(array.gram, basis, "projection").eigenvalues(),
    ):
        count = min(len(found), len(expected))
        error = (found[:count] - expected[:count]).abs().max()
        assert float(error) < 1e-10 * float(torch.linalg.eigvalsh(whole)[-1])


def test_how_many_lie_above_is_counted_without_them() -> None:
    left = downdated(40, 6)
    values = torch.linalg.eigvalsh(left.to_dense())
    for level in torch.linspace(-0.1, 1.1 * float(values[-1]), 29).tolist():
        assert left.count_above(level) == int((values > level).sum())
    nothing = Downdate(left.values, left.factor[:, :0])
    assert nothing.count_above(0.5) == int((left.values > 0.5).sum())


def test_the_top_of_a_large_one_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knockouts, "DENSE_UP_TO", 0)
    left = downdated(300, 8)
    expected = torch.linalg.eigvalsh(left.to_dense()).flip(0)[:6]
    assert float((top_of(left, 6) - expected).abs().max()) < 1e-10 * float(expected[0])
    # Should a search miss one, that is noticed and all are computed.
    passed = Downdate.count_above
    monkeypatch.setattr(Downdate, "count_above", lambda self, level: passed(self, level) + 1)
    assert float((top_of(left, 6) - expected).abs().max()) < 1e-10 * float(expected[0])
    assert top_of(downdated(3, 1), 5)[3:].tolist() == [0.0, 0.0]


def test_null_vectors_of_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    left = downdated(60, 5)  # Λ^½(I − QQᵀ)Λ^½ has five
    few = left.null_vectors()
    monkeypatch.setattr(downdate, "SMALL", 0)
    found = left.null_vectors()
    assert found.shape == few.shape == (60, 5)
    assert float((found @ found.T - few @ few.T).abs().max()) < 1e-9
    assert float((left @ found).abs().max()) < 1e-12


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_known_nulls_are_left_out(case: object) -> None:
    """n of the nC eigenvalues of S are zero whatever the net."""
    model, features, labels = case.build()
    rows = deepspec.gradients(deepspec.Problem(model, (features, labels))).rows
    S, nulls = rows.gram().double(), rows.nulls()
    off = OffKnownNulls.of(nulls)
    eye = torch.eye(len(S)).double()
    Q = off.expand(torch.eye(len(S) - len(nulls)).double())
    assert float((Q.T @ Q - torch.eye(Q.shape[1]).double()).abs().max()) < 1e-13
    assert float((off.coordinates(eye) - Q.T).abs().max()) < 1e-13
    gram = MatrixGram(S, rows.dtype, nulls)
    values, vectors = gram.eigenpairs
    scale = float(values[0])
    assert values.shape == (len(S) - len(nulls),)
    expected = torch.linalg.eigvalsh(S).flip(0)
    assert float((values - expected[: len(values)].clamp_min(0)).abs().max()) < 1e-12 * scale
    assert float(((vectors * values) @ vectors.T - S).abs().max()) < 1e-12 * scale
    again = restore_gram(gram.state(), rows.dtype)
    assert torch.equal(again.eigenpairs[0], values)
