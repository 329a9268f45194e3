"""The mini-bulk is found where it was planted: left of the bulk, inside it, right of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import deepspec
from deepspec.attribution.mini_bulk import Taken, decades_between, describe_mini_bulk, locate
from deepspec.class_structure.parts import BetweenClass, CrossClass, WithinClass

C, PER_CLASS = 5, 24


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def planted(level: float) -> deepspec.ClassArray:
    """S with eigenvalues about 50 among class means, about ``level`` among cross-class deviations,
    and from 0.1 to 10 within cells; a little of everything mixed in."""
    labels = torch.arange(C).repeat_interleave(PER_CLASS)
    m = C * PER_CLASS * C
    weights = torch.full((C * PER_CLASS, C), 1.0 / m, dtype=torch.float64)
    cells = deepspec.ClassArray(normal(C * PER_CLASS, C, 2), labels, weights).cells
    between, cross = BetweenClass(cells).basis, CrossClass(cells).basis
    rest = torch.linalg.eigh(WithinClass(cells).to_dense())[1][:, -WithinClass(cells).rank :]
    mini = level * torch.linspace(0.9, 1.1, cross.shape[1], dtype=torch.float64)
    bulk = torch.logspace(-1, 1, rest.shape[1], dtype=torch.float64)
    rows = torch.cat([between * 50**0.5, cross * mini.sqrt(), rest * bulk.sqrt()], dim=1)
    rows = rows + 1e-3 * normal(*rows.shape, seed=1)
    return deepspec.ClassArray(rows.view(C * PER_CLASS, C, -1) * m**0.5, labels, weights)


@pytest.mark.parametrize(
    ("level", "side"), [(0.01, "left of"), (1.0, "inside"), (25.0, "right of")]
)
def test_it_is_found_where_it_was_planted(level: float, side: str) -> None:
    array = planted(level)
    part = CrossClass(array.cells)
    located = locate(array.gram, part)
    found = describe_mini_bulk(located, part)
    assert found.count == pytest.approx(part.rank, abs=2)
    assert found.side == side
    assert found.outside == (0.0 if side == "inside" else 1.0)
    assert found.left == pytest.approx(0.0, abs=1.5)
    assert located.removed(part.basis) > 0.8
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        order = torch.randperm(C * PER_CLASS, generator=generator)
        wrong = CrossClass(array.cells.relabelled(array.cells.labels[order]))
        assert located.removed(wrong.basis) < 0.75 * located.removed(part.basis)


def test_what_a_knockout_takes_is_counted_without_its_spectrum() -> None:
    array = deepspec.ClassArray(normal(12, 3, 9), torch.arange(3).repeat(4))
    S = array.gram.to_dense()
    located = locate(array.gram, CrossClass(array.cells))
    for kind in (CrossClass, BetweenClass):
        P = kind(array.cells)
        keep = torch.eye(len(S)).double() - P.to_dense()
        after = torch.linalg.eigvalsh(keep @ S @ keep)
        before = torch.linalg.eigvalsh(S)
        for level in torch.linspace(0.01, 1.1 * float(before[-1]), 23).tolist():
            expected = int((before > level).sum()) - int((after > level).sum())
            assert Taken(located, P.basis).above(level) == expected


def test_where_there_is_none() -> None:
    array = deepspec.ClassArray(normal(12, 7), torch.arange(3).repeat(4))
    part = CrossClass(array.cells)
    found = describe_mini_bulk(locate(array.gram, part), part)
    assert (found.count, found.rank, found.side) == (0, 0, "nowhere beside")
    assert math.isnan(decades_between(torch.zeros(0), torch.ones(1)))
