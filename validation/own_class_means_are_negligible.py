"""Subtracting G_{c=c'} has no clear effect on the spectrum."""

from __future__ import annotations

from pathlib import Path

from deepspec.attribution import SplitAttribution
from validation._attributed import mean, over_nets
from validation._study import Profile, Study, Verdict


def largest_change(split: SplitAttribution) -> float:
    """The largest relative change of a top-C eigenvalue of G."""
    after = split.knockout("own_class").subtracted
    count = len(split.class_counts)
    return float((1 - after[:count] / split.top[:count]).max())


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The change of the top C when the own-class means are subtracted, beside their trace."""
    changes = over_nets(profile, largest_change)
    shares = over_nets(profile, lambda split: split.decompositions[0].part("own_class").share)
    numbers = {f"{key}_largest_change": mean(values) for key, values in changes.items()}
    numbers |= {f"{key}_share_of_trace": mean(values) for key, values in shares.items()}
    train = [value for key, values in changes.items() if key.endswith("train") for value in values]
    finding = "; ".join(
        f"{key.replace('_', ', ')}: the top C change by at most {100 * mean(values):.2f} %"
        for key, values in changes.items()
    )
    return Verdict(max(train) < 0.02, finding, numbers)


STUDY = Study(
    name="own-class-means-are-negligible",
    claim="Subtracting G_{c=c'} has no clear effect: mean gradients vanish at convergence",
    source="Papyan (2020) §6.1",
    prediction="no eigenvalue of the top C changes noticeably on train data",
    tolerance="below 2 % for each of the top C, every seed and kind of net, train",
    run=run,
)
