"""Nets of which the answer is known: the verdicts come out right."""

import pytest
import torch
from torch import nn

import deepspec
from deepspec import Problem
from deepspec.attribution import SplitAttribution, attribute
from tests.deepspec.attribution import planted


def verdicts(split: SplitAttribution) -> dict[str, str]:
    return {finding.claim: finding.answer for finding in split.findings}


def supported(problem: deepspec.Problem, draws: int = 9, **options: object) -> set[str]:
    found = attribute(problem, draws=draws, **options).train
    return {claim for claim, answer in verdicts(found).items() if answer == "supported"}


@pytest.mark.parametrize("convention", ["jmlr2020", "icml2019"])
def test_class_means_only(convention: str) -> None:
    directions, labels = planted.class_means([30] * 4, 6.0)
    found = attribute(planted.problem(directions, labels), draws=9, convention=convention).train
    answers = verdicts(found)
    assert answers["outliers"] == "supported"
    assert answers["bulk"] == "supported"
    assert answers["outliers of Hess"] == "supported"
    assert answers["mini-bulk"] != "supported"
    # Four orthogonal means of one height: no direction is the single top one.
    assert answers["top outlier"] != "supported"
    assert answers["bulk of Hess"] == "not supported"  # the net is linear: E = 0
    assert found.outliers == 4
    assert found.outliers_without("between_class") == 0
    assert found.alignment.cosines["G and class means"].min() > 0.99


@pytest.mark.parametrize("seed", range(6))
def test_no_class_signal_supports_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = planted.labels_of([30] * 4)
    directions = planted.noise(labels, 4, 60, generator)
    found = attribute(planted.problem(directions, labels, confidence=0.0), draws=9, seed=seed)
    assert "supported" not in verdicts(found.train).values()
    assert found.train.outliers == 0


def test_labels_that_mean_nothing_support_nothing() -> None:
    directions, labels = planted.class_means([30] * 4, 6.0)
    wrong = planted.problem(directions, labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))
    wrong.targets = wrong.targets[order]
    assert not supported(wrong) & {"top outlier", "outliers", "mini-bulk", "bulk"}


def test_cross_class_means_only() -> None:
    directions, labels = planted.cross_means([30] * 4, 6.0)
    answers = verdicts(attribute(planted.problem(directions, labels), draws=9).train)
    assert answers["mini-bulk"] == "supported"
    assert answers["outliers"] == "not supported"
    assert answers["top outlier"] != "supported"


def test_a_bulk_that_hides_the_outliers() -> None:
    directions, labels = planted.class_means([30] * 4, 0.4, level=1.0)
    found = attribute(planted.problem(directions, labels), draws=9).train
    assert found.outliers == 0
    assert "supported" not in verdicts(found).values()


def test_a_global_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = planted.labels_of([30] * 4)
    one = planted.orthonormal(1, 60, generator)[0]
    others = 1 - torch.nn.functional.one_hot(labels, 4).double()
    directions = 6.0 * others[:, :, None] * one
    directions = directions + 0.3 * planted.noise(labels, 4, 60, generator)
    found = attribute(planted.problem(directions, labels), draws=9).train
    finding = found.finding("top outlier")
    assert finding.removed > 0.9
    assert finding.answer == "supported"


def test_one_class_ten_times_the_others() -> None:
    directions, labels = planted.class_means([100, 10, 10, 10], 6.0)
    found = attribute(planted.problem(directions, labels), draws=9).train
    answers = verdicts(found)
    assert answers["outliers"] == "supported"
    assert answers["mini-bulk"] != "supported"
    assert found.outliers_without("between_class") == 0


def test_two_classes() -> None:
    directions, labels = planted.class_means([40, 40], 6.0)
    found = attribute(planted.problem(directions, labels), draws=9).train
    assert verdicts(found)["outliers"] == "supported"
    assert found.finding("mini-bulk").answer == "not decided"
    assert found.decompositions[0].part("cross_class").rank == 0


def test_very_many_classes_of_five() -> None:
    """Above 32 classes their C² means are not all formed; a study has a hundred classes."""
    generator = torch.Generator().manual_seed(0)
    labels = planted.labels_of([5] * 33)
    features = torch.eye(33, 36)[labels] * 4
    features = features + 0.3 * torch.randn(165, 36, generator=generator)
    model = torch.nn.Linear(36, 33, bias=False)
    torch.nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.weight[:, :33] = 2.0 * torch.eye(33)
    problem = deepspec.Problem(model, (features, labels))
    found = attribute(problem, draws=3, steps=20, exact_up_to=2000).train
    assert found.finding("outliers").answer == "supported"
    assert found.means is None
    assert not found.exact


def test_the_names_of_the_classes_do_not_matter() -> None:
    directions, labels = planted.class_means([30, 20, 25, 10], 6.0)
    renamed = torch.tensor([2, 0, 3, 1])
    again = planted.problem(directions[:, renamed.argsort()], renamed[labels])
    first = attribute(planted.problem(directions, labels), draws=3).train
    second = attribute(again, draws=3).train
    torch.testing.assert_close(first.top, second.top)
    for one, other in zip(first.findings, second.findings, strict=True):
        assert one.answer == other.answer
        assert abs(one.removed - other.removed) < 1e-6 or one.removed != one.removed


def test_without_scatter_no_more_outliers_are_counted_than_g_has_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    X = torch.randn(3, 4, generator=generator).double().repeat(10, 1)
    found = attribute(Problem(model, (X, torch.arange(3).repeat(10))), draws=2).train
    assert int((found.top > found.edge).sum()) <= 6


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 50), (torch.float64, 400)])
def test_a_perfect_fit_is_refused_in_words(dtype: torch.dtype, scale: float) -> None:
    model = nn.Linear(3, 3).double()
    with torch.no_grad():
        model.weight.copy_(scale * torch.eye(3))
        model.bias.zero_()
    data = torch.eye(3).double().repeat(4, 1), torch.arange(3).repeat(4)
    with pytest.raises(ValueError, match="the fit is perfect"):
        attribute(Problem(model, data, dtype=dtype), draws=2)
