"""Neural collapse by its definitions, densely."""

import pytest
import torch

from deepspec.layerwise.collapse import neural_collapse


def test_every_measure_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(9)[:33]
    features = torch.randn(33, 6, generator=generator, dtype=torch.float64) + labels[:, None]
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    measured = neural_collapse(features, labels, weight, bias)
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    centred = means - means.mean(0)
    inside = features - means[labels]
    within, between = inside.T @ inside / 33, centred.T @ centred / 4
    assert measured.nc1 == pytest.approx(
        float(torch.trace(within @ torch.linalg.pinv(between, rtol=1e-12))) / 4, rel=1e-10
    )
    norms = centred.norm(dim=1)
    assert measured.nc2_norms == pytest.approx(float(norms.std(correction=0) / norms.mean()))
    cosines = [
        abs(float(centred[a] @ centred[b] / norms[a] / norms[b]) + 1 / 3)
        for a in range(4)
        for b in range(4)
        if a != b
    ]
    assert measured.nc2_angles == pytest.approx(sum(cosines) / 12, rel=1e-10)
    gap = weight / weight.norm() - centred / centred.norm()
    assert measured.nc3 == pytest.approx(float(gap.square().sum()), rel=1e-10)
    distances = (features[:, None] - means).norm(dim=2)
    differ = (features @ weight.T + bias).argmax(1) != distances.argmin(1)
    assert measured.nc4 == pytest.approx(float(differ.double().mean()))


def test_classes_without_samples_are_left_out() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    weight = torch.cat([3 * eye - 1, torch.ones(1, 3).double()])
    measured = neural_collapse(eye, torch.arange(3), weight)
    assert max(vars(measured).values()) < 1e-12
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        neural_collapse(eye, torch.zeros(3, dtype=torch.long), weight)
