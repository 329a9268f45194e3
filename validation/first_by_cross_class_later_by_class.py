"""Mean gradients cluster first by cross-class c', later by class c."""

from __future__ import annotations

from pathlib import Path

from validation._attributed import MOMENTS, layouts, mean
from validation._study import Profile, Study, Verdict


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The shares of c and c' in the two-way layout, after some epochs of one training."""
    found = layouts(profile)
    numbers: dict[str, float] = {}
    for place, epochs in enumerate(MOMENTS):
        numbers[f"class_{epochs}"] = mean([run[place].by_class for run in found])
        numbers[f"cross_class_{epochs}"] = mean([run[place].by_cross_class for run in found])
        numbers[f"interaction_{epochs}"] = mean([run[place].interaction for run in found])
    first = all(run[0].by_cross_class > run[0].by_class for run in found)
    last = all(run[-1].by_class > run[-1].by_cross_class for run in found)
    finding = "; ".join(
        f"{epochs} epochs: c {100 * numbers[f'class_{epochs}']:.0f} %, "
        f"c' {100 * numbers[f'cross_class_{epochs}']:.0f} %"
        for epochs in MOMENTS
    )
    return Verdict(first and last, finding, numbers)


STUDY = Study(
    name="first-by-cross-class-later-by-class",
    claim="Mean gradients cluster by the logit coordinate c' first, by the class c later",
    source="Papyan (2019) §1.1 and Fig. 5",
    prediction="the share of c' exceeds that of c in the untrained net, and falls below it",
    tolerance="c' above c before training, c above c' after it, in every seed (MLP, train)",
    run=run,
)
