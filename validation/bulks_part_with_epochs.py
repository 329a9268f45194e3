"""The bulks of G_cross and G_within part as training goes on."""

from __future__ import annotations

from pathlib import Path

from deepspec.report.plots.style import png
from deepspec.report.plots.trends import separation
from validation._study import Profile, Study, Verdict
from validation._swept import trajectories


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The slope of their distance on the log axis with log epoch, for each n, over seeds."""
    numbers: dict[str, float] = {}
    words, signs = [], []
    for place, trajectory in enumerate(trajectories(profile)):
        trends = trajectory.trends
        for n, found in trends.with_epoch.items():
            key = f"{place}_n{n}"
            numbers[key], numbers[f"{key}_error"] = found.mean, found.standard_error
            numbers[f"{key}_class"] = trends.class_with_epoch[n].mean
            signs.append(found.sign)
            words.append(f"{trajectory.title}, {n} per class: {found.mean:+.2f}")
        if folder is not None:
            picture = png(separation(trajectory.moments, trends))
            (folder / f"separation-{place}.png").write_bytes(picture)
    return Verdict(all(sign > 0 for sign in signs), "; ".join(words), numbers)


STUDY = Study(
    name="bulks-part-with-epochs",
    claim="At any sample size the bulks of G_cross and G_within part as training goes on",
    source="Papyan (2020) §6.2, Papyan (2018) Fig. 7",
    prediction="their distance (decades, between distribution functions) grows with log epoch",
    tolerance="slope above zero by two standard errors over seeds, at every n (MLP, train)",
    run=run,
)
