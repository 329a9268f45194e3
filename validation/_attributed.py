"""The nets of the attribution studies, trained and attributed once and shared by all of them."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn

from deepspec import Problem
from deepspec.attribution import CLAIMS, Attribution, SplitAttribution, attribute
from deepspec.class_structure import ClassStructure, cell_means
from deepspec.class_structure.two_way import TwoWayLayout, two_way_layout
from deepspec.dynamics import Snapshots, trajectory
from deepspec.report.plots import log_spectrum_of_g, verdict_chart
from deepspec.report.plots.style import png
from deepspec.storage.results import Saved
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import convnet, mlp
from deepspec.zoo.training import SNAPSHOTS, train
from validation._record import kept
from validation._study import Profile, Study, Verdict

EPOCHS = 60
MOMENTS = (0, 3, 9, 30, EPOCHS)


@cache
def attributions(profile: Profile) -> dict[str, list[Attribution]]:
    """Nets on the digits, trained to zero error as the papers train; several seeds of each kind.

    Quick: two MLPs on 40 digits of each class. Full: five MLPs and five small convolutional nets
    with batch normalisation, on 100 of each.
    """
    quick = profile == "quick"
    kinds = ("mlp",) if quick else ("mlp", "convnet")
    return {
        kind: [
            kept(f"{profile}-{kind}-{seed}", Attribution, partial(_attributed, kind, seed, quick))
            for seed in range(2 if quick else 5)
        ]
        for kind in kinds
    }


def _attributed(kind: str, seed: int, quick: bool, checkpoint: Path | None) -> Attribution:
    split = digits(40 if quick else 100, seed=seed, image=kind == "convnet")
    model = (mlp if kind == "mlp" else convnet)(seed=seed).eval()
    fresh = copy.deepcopy(model)
    done = train(model, *split.train, epochs=EPOCHS, seed=seed)
    assert done.error_rate == 0.0, f"{kind}, seed {seed}: {done.error_rate} of the digits wrong"
    return attribute(
        Problem(model, split.train),
        test=Problem(model, split.test),
        untrained=Problem(fresh, split.train),
        seed=seed,
        draws=5 if quick else 19,
        steps=40 if quick else 100,
        checkpoint=checkpoint,
    )


@cache
def layouts(profile: Profile) -> list[list[TwoWayLayout]]:
    """For each seed the two-way layouts of an MLP's mean gradients at moments of one training."""
    quick = profile == "quick"
    return [
        kept(f"{profile}-layouts-{seed}", Layouts, partial(_layouts, seed, quick)).moments
        for seed in range(2 if quick else 5)
    ]


@dataclass(frozen=True, kw_only=True)
class Layouts(Saved):
    """Of one training, at each of :data:`MOMENTS`."""

    moments: list[TwoWayLayout]


def _layouts(seed: int, quick: bool, _: Path | None) -> Layouts:
    split = digits(40 if quick else 100, seed=seed)
    model = mlp(seed=seed)
    with tempfile.TemporaryDirectory() as place:
        train(model, *split.train, epochs=EPOCHS, seed=seed, folder=place, snapshots=MOMENTS)
        snapshots = Snapshots(Path(place) / SNAPSHOTS, model)
        moments = trajectory(snapshots, partial(_layout, data=split.train))
    return Layouts(moments=[moments[epoch] for epoch in MOMENTS])


def _layout(model: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> TwoWayLayout:
    means = cell_means(ClassStructure(Problem(model, data)))
    cells = [(c, other) for c, other in means.index]
    return two_way_layout(means.gram, means.weights, cells)


def mean(values: list[float]) -> float:
    """The average of a list."""
    return sum(values) / len(values)


def over_nets(
    profile: Profile, number: Callable[[SplitAttribution], float]
) -> dict[str, list[float]]:
    """One number from each net's train and test split, as ``kind_split``."""
    return {
        f"{kind}_{name}": [number(found.splits[name]) for found in several]
        for kind, several in attributions(profile).items()
        for name in ("train", "test")
    }


def study_of_claim(name: str, claim: str, *, projection: bool = False) -> Study:
    """The study of one of :data:`deepspec.attribution.CLAIMS`, by the rule of its verdicts."""
    known = CLAIMS[claim]

    def run(profile: Profile, folder: Path | None) -> Verdict:
        several = attributions(profile)
        shares = over_nets(profile, lambda split: split.finding(claim).removed)
        answers = {
            f"{kind}_{split}": [found.splits[split].finding(claim).answer for found in nets]
            for kind, nets in several.items()
            for split in ("train", "test")
        }
        numbers = {f"{key}_removed": mean(values) for key, values in shares.items()}
        if projection:
            projected = over_nets(profile, lambda split: split.finding(claim).by_projection)
            numbers |= {f"{key}_projected": mean(values) for key, values in projected.items()}
        for kind, nets in several.items():
            for null in nets[0].train.finding(claim).nulls:
                draws = [float(net.train.finding(claim).nulls[null].mean()) for net in nets]
                numbers[f"{kind}_train_{null.replace(' ', '_')}"] = mean(draws)
        sentences = []
        for key, given in answers.items():
            count = sum(answer == "supported" for answer in given)
            sentences.append(
                f"{key.replace('_', ', ')}: {100 * numbers[f'{key}_removed']:.0f} % removed, "
                f"supported in {count} of {len(given)}"
            )
            numbers[f"{key}_supported"] = count / len(given)
        if folder is not None:
            for kind, nets in several.items():
                (folder / f"{name}-{kind}-verdicts.png").write_bytes(
                    png(verdict_chart(nets[0].train))
                )
                (folder / f"{name}-{kind}-spectrum.png").write_bytes(
                    png(log_spectrum_of_g(nets[0].train))
                )
        passed = all(
            sum(answer == "supported" for answer in given) > len(given) / 2
            for key, given in answers.items()
            if key.endswith("_train")
        )
        return Verdict(passed, "; ".join(sentences), numbers)

    return Study(
        name=name,
        claim=f"{known.feature[0].upper()}{known.feature[1:]}: caused by {known.cause}",
        source=known.source,
        prediction="at least half of the feature goes when its cause is subtracted",
        tolerance=(
            "supported by deepspec.attribution.judge (half removed, and more than with any null at "
            "1 %) on train data for most seeds of every kind of net"
        ),
        run=run,
    )
