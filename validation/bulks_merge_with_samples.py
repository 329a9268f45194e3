"""The bulks of G_cross and G_within draw closer with sample size."""

from __future__ import annotations

from pathlib import Path

from deepspec.report.plots.dynamics import log_spectra
from deepspec.report.plots.style import png
from validation._study import Profile, Study, Verdict
from validation._swept import trajectories


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The slope of their distance on the log axis with log n, after the last epoch."""
    numbers: dict[str, float] = {}
    words, signs = [], []
    for place, trajectory in enumerate(trajectories(profile)):
        slopes = trajectory.trends.with_samples
        for epoch, found in slopes.items():
            numbers[f"{place}_epoch{epoch}"] = found.mean
            numbers[f"{place}_epoch{epoch}_error"] = found.standard_error
        last = slopes[max(slopes)]
        signs.append(last.sign)
        words.append(f"{trajectory.title}: {last.mean:+.2f} ± {last.standard_error:.2f}")
        if folder is not None:
            (folder / f"log-spectra-{place}.png").write_bytes(png(log_spectra(trajectory.table)))
    return Verdict(all(sign < 0 for sign in signs), "; ".join(words), numbers)


STUDY = Study(
    name="bulks-merge-with-samples",
    claim="At any epoch the bulks of G_cross and G_within draw closer with sample size",
    source="Papyan (2020) §6.2, Papyan (2018) Fig. 7",
    prediction="their distance (decades, between distribution functions) falls with log n",
    tolerance="slope below zero by two standard errors over seeds, after the last epoch",
    run=run,
)
