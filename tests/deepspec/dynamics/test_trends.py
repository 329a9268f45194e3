"""Trends are found where they were put, and nowhere else."""

import math
from dataclasses import replace

import pytest
import torch

from deepspec.attribution.spectra import exact_spectrum_of
from deepspec.class_structure.two_way import TwoWayLayout
from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.dynamics.trends import (
    OverSeeds,
    Trends,
    kink,
    measure_trends,
    overtaking,
    peak,
    slope,
)


def layout(by_class: float, by_cross: float) -> TwoWayLayout:
    return TwoWayLayout(
        class_alone=0.0,
        cross_class_alone=0.0,
        by_class=by_class,
        by_cross_class=by_cross,
        shared=0.0,
        interaction=0.0,
        total=1.0,
    )


def moment(
    epoch: int, decades: float, trace: float = 1.0, shares: tuple[float, float] = (0.0, 1.0)
) -> SnapshotSpectra:
    """G_cross so many decades above G_within, both at one place; G_class at 0.1."""
    base = 1e-3
    return SnapshotSpectra(
        epoch=epoch,
        samples=30,
        classes=3,
        parameters=10**6,
        loss=0.0,
        error_rate=0.0,
        test_error=math.nan,
        exact=True,
        trace=trace,
        spectrum=exact_spectrum_of("G", torch.tensor([1.0]), 1),
        within=exact_spectrum_of("G_within", torch.full((54,), base), 0),
        class_values=torch.full((3,), 0.1, dtype=torch.float64),
        cross_values=torch.full((3,), base * 10**decades, dtype=torch.float64),
        own_values=torch.zeros(3, dtype=torch.float64),
        within_means=torch.zeros(3, dtype=torch.float64),
        within_trace=54 * base,
        within_rank=54,
        levels={},
        hessian=(),
        layout=layout(*shares),
        means=None,
    )


def test_slopes_peaks_and_overtakings_over_seeds() -> None:
    """0.5 decades a decade of epochs, −0.2 a decade of n, and seeds that differ by 0.1."""
    trajectories, errors = {}, {}
    for n in (10, 100):
        for seed in (0, 1):
            trajectories[n, seed] = [
                moment(
                    epoch,
                    1 + (0.5 + 0.1 * seed) * math.log10(max(epoch, 1)) - 0.2 * math.log10(n),
                    trace={0: 1.0, 1: 3.0, 10: 2.0, 100: 1.0}[epoch],
                    shares={0: (0.9, 0.1), 1: (0.1, 0.9)}.get(epoch, (0.6, 0.4)),
                )
                for epoch in (0, 1, 10, 100)
            ]
            errors[n, seed] = [0.8, 0.6, 0.483, 0.4, 0.4, 0.4, 0.4]
    trends = measure_trends(trajectories, errors)
    for table in (trends.with_epoch, trends.means_with_epoch):
        assert table[10].mean == pytest.approx(0.55, abs=1e-6)
        assert table[10].standard_error == pytest.approx(0.05, abs=1e-6)
        assert table[10].sign == 1
    for table in (trends.with_samples, trends.means_with_samples):
        assert table[100].mean == pytest.approx(-0.2, abs=1e-6)
        assert set(table) == {1, 10, 100}
    assert trends.class_with_epoch[100].mean == pytest.approx(0.0, abs=1e-12)
    assert trends.class_with_epoch[100].sign == 0
    assert trends.peak[10] == OverSeeds(mean=1.0, standard_error=0.0, seeds=2)
    assert trends.kink[10].mean == 4.0
    assert trends.overtaking[10].mean == 10.0
    assert "epoch of the kink of the training error: 10 per class: 4 ± 0 (2 seeds)" in repr(trends)


def test_they_are_kept(tmp_path: object) -> None:
    trends = measure_trends({(10, 0): [moment(1, 1.0)]}, {(10, 0): []})
    trends.save(f"{tmp_path}/kept")
    again = Trends.load(f"{tmp_path}/kept")
    assert repr(again) == repr(trends)
    assert math.isnan(again.with_epoch[10].mean)
    assert again.with_samples == {}


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="at least one trajectory"):
        measure_trends({}, {})
    assert math.isnan(slope([1.0], [2.0]))
    assert math.isnan(slope([1.0, 1.0], [2.0, 3.0]))
    assert math.isnan(peak([]))
    assert math.isnan(kink([0.1, 0.1, 0.1, 0.1]))
    assert math.isnan(kink([0.3, 0.2]))
    assert math.isnan(overtaking([moment(1, 0.0)]))
    assert math.isnan(overtaking([replace(moment(1, 0.0), layout=None)]))
    assert OverSeeds.of([1.0]).sign == 0
    assert math.isnan(OverSeeds.of([math.nan]).mean)
    assert OverSeeds.of([-1.0, -1.1]).sign == -1
