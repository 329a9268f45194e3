"""A hundred planted classes of five samples each: the outliers come from the class means."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from deepspec import Problem, attribute
from deepspec.zoo.training import train
from validation._study import Profile, Study, Verdict


def planted(classes: int, per_class: int) -> tuple[Tensor, Tensor]:
    """Gaussian clouds in R^20, one around each of C random centres twice as wide."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(per_class)
    centres = 2 * torch.randn(classes, 20, generator=generator)
    return centres[labels] + torch.randn(len(labels), 20, generator=generator), labels


def run(profile: Profile, folder: Path | None) -> Verdict:
    """Train to zero error and attribute."""
    classes = 40 if profile == "quick" else 100
    inputs, labels = planted(classes, 5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, classes))
    training = train(model, inputs, labels, learning_rate=0.1)
    found = attribute(Problem(model, (inputs, labels)), draws=3).train
    finding = next(f for f in found.findings if f.claim == "outliers")
    clear = int((found.top > found.edge).sum())
    passed = training.error_rate == 0 and finding.answer == "supported"
    return Verdict(
        passed,
        f"C = {classes}, n = 5 a class: {clear} eigenvalues lie above the within part; class "
        f"means remove {finding.removed:.0%} of the top C: {finding.answer}",
        {"classes": classes, "above": clear, "removed": finding.removed},
    )


STUDY = Study(
    name="outliers-of-many-classes",
    claim="With many classes, and few samples of each, class means still cause the outliers",
    source="Papyan (2019) §1.1, Papyan (2020) §6.1",
    prediction="the planted truth: most of the outliers go with the class means",
    tolerance="the rule of deepspec.attribution.verdicts.judge; how many there are is reported",
    run=run,
)
