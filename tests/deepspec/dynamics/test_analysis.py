"""One moment measured, against dense matrices by definition; exact and by products."""

import math
from dataclasses import replace

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from deepspec.attribution.spectra import exact_spectrum_of
from deepspec.dynamics.analysis import analyse
from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.problem import Problem
from tests import oracles

LABELS = torch.tensor([0, 0, 1, 2, 0, 1, 2, 2, 1, 0])


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(10, 4, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def found() -> SnapshotSpectra:
    return analyse(Problem(net(), (inputs(), LABELS)), epoch=7, test_error=0.5)


def top(matrix: Tensor, count: int) -> Tensor:
    return torch.linalg.eigvalsh(matrix).flip(0)[:count]


def test_parts_and_traces_are_those_by_definition(found: SnapshotSpectra) -> None:
    parts = oracles.parts_of_g(net(), inputs(), LABELS, "jmlr2020")
    for name, values in (
        ("between_class", found.class_values),
        ("cross_class", found.cross_values),
        ("own_class", found.own_values),
    ):
        expected = top(parts[name], len(values))
        torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-12)
    whole = oracles.gauss_newton(net(), inputs())
    assert found.trace == pytest.approx(float(whole.trace()), rel=1e-12)
    assert found.within_trace == pytest.approx(float(parts["within_class"].trace()), rel=1e-10)
    all_of_g = torch.cat([found.spectrum.top, found.spectrum.nodes])
    torch.testing.assert_close(all_of_g[:20], top(whole, 20), rtol=1e-9, atol=1e-12)
    within = top(parts["within_class"], found.within_rank)
    torch.testing.assert_close(found.within.nodes, within, rtol=1e-8, atol=1e-12)
    assert found.within_rank == 20


def test_traces_within_each_class(found: SnapshotSpectra) -> None:
    """G_within,c by itself: the part of the samples of c alone, with weights of the whole."""
    counts = torch.bincount(LABELS)
    for c in range(3):
        chosen = c == LABELS
        parts = oracles.parts_of_g(net(), inputs()[chosen], LABELS[chosen], "jmlr2020")
        # Weights are p/n there with n of the class alone.
        expected = float(parts["within_class"].trace()) * int(counts[c]) / 10
        assert float(found.within_means[c]) == pytest.approx(expected / int(counts[c]), rel=1e-10)


def test_levels_are_those_of_2019(found: SnapshotSpectra) -> None:
    parts = oracles.parts_of_g(net(), inputs(), LABELS, "icml2019")
    means = parts["between_class"] + parts["cross_class"] + parts["own_class"]
    for name, matrix in (
        ("G0", parts["own_class"]),
        ("G1", parts["between_class"]),
        ("G2", parts["cross_class"]),
        ("G1+2", means),
    ):
        values = found.levels[name]
        torch.testing.assert_close(values, top(matrix, len(values)), rtol=1e-9, atol=1e-12)


def test_hessian_and_e(found: SnapshotSpectra) -> None:
    hess, e = found.hessian
    dense = oracles.hessian(net(), inputs(), LABELS)
    torch.testing.assert_close(hess.top, top(dense, 3), rtol=1e-9, atol=1e-12)
    residual = dense - oracles.gauss_newton(net(), inputs())
    largest = float(torch.linalg.eigvalsh(residual).abs().max())
    assert found.edge_of_e == pytest.approx(largest, rel=1e-9)
    assert e.trace == pytest.approx(float(residual.trace()), rel=1e-8)
    alone = analyse(Problem(net(), (inputs(), LABELS)), hessian=False)
    assert alone.hessian == ()
    assert math.isnan(alone.edge_of_e)


def test_by_products_it_is_the_same_up_to_probes(found: SnapshotSpectra) -> None:
    again = analyse(
        Problem(net(), (inputs(), LABELS)), hessian=False, exact_up_to=0, steps=60, seed=1
    )
    assert not again.exact
    torch.testing.assert_close(again.cross_values, found.cross_values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again.spectrum.top, found.spectrum.top, rtol=1e-4, atol=1e-9)
    assert again.within_trace == pytest.approx(found.within_trace, rel=0.3)


def test_how_far_apart(found: SnapshotSpectra) -> None:
    ratio = (float(found.cross_values.sum()) / 3) / (found.within_trace / 20)
    assert found.separation == pytest.approx(math.log10(ratio), rel=1e-12)
    floor = 1e-5 * float(found.spectrum.top[0])
    expected = scipy.stats.wasserstein_distance(
        found.cross_values.clamp_min(floor).log10(), found.within.nodes.clamp_min(floor).log10()
    )
    assert found.distance == pytest.approx(expected, rel=1e-9)
    # Two places a decade apart; what the rank says is missing lies at the floor, five below.
    made = replace(
        found,
        spectrum=exact_spectrum_of("G", torch.tensor([1.0]), 1),
        cross_values=torch.full((3,), 1e-1, dtype=torch.float64),
        within=exact_spectrum_of("G_within", torch.full((20,), 1e-2), 0),
    )
    assert made.distance == pytest.approx(1.0, rel=1e-6)
    half = replace(made, within=exact_spectrum_of("G_within", torch.full((10,), 1e-2), 0))
    assert half.distance == pytest.approx((1.0 + 4.0) / 2, rel=1e-6)
    assert math.isnan(replace(made, cross_values=made.cross_values[:0]).distance)
    assert math.isnan(replace(made, within_trace=0.0).class_separation)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 Lanczos steps, got 1"):
        analyse(Problem(net(), (inputs(), LABELS)), steps=1)


def test_it_is_kept_to_the_bit(found: SnapshotSpectra, tmp_path: object) -> None:
    found.save(f"{tmp_path}/kept")
    again = SnapshotSpectra.load(f"{tmp_path}/kept")
    assert repr(again) == repr(found)
    assert torch.equal(again.cross_values, found.cross_values)
    assert again.layout == found.layout
