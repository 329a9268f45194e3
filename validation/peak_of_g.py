"""tr G rises to a peak, where the training error has its kink, and falls."""

from __future__ import annotations

from pathlib import Path

from deepspec.report.dynamics import error_figure
from deepspec.report.plots.style import png
from validation._attributed import mean
from validation._study import Profile, Study, Verdict
from validation._swept import trajectories


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The epochs of the peak and of the kink, and how far tr G falls from it."""
    numbers: dict[str, float] = {}
    words, checks = [], []
    for place, trajectory in enumerate(trajectories(profile)):
        trends = trajectory.trends
        for n in trajectory.sizes:
            peak, kink = trends.peak[n].mean, trends.kink[n].mean
            falls = [
                max(m.trace for m in moments) / moments[-1].trace
                for (own, _), moments in trajectory.moments.items()
                if own == n
            ]
            key = f"{place}_n{n}"
            numbers |= {f"{key}_peak": peak, f"{key}_kink": kink, f"{key}_falls": mean(falls)}
            checks.append(0.5 <= peak / kink <= 2 and mean(falls) > 2)
            words.append(
                f"{trajectory.title}, {n} per class: peak {peak:.0f}, kink {kink:.0f}, falls "
                f"{mean(falls):.1f}-fold"
            )
        if folder is not None:
            (folder / f"errors-{place}.png").write_bytes(png(error_figure(trajectory)))
    return Verdict(all(checks), "; ".join(words), numbers)


STUDY = Study(
    name="peak-of-g",
    claim="G grows until the training error stops falling steeply, then falls",
    source="Papyan (2018) Figs. 6 and 10",
    prediction="tr G has its peak at the kink of the training error, and falls after it",
    tolerance="peak within a factor of 2 of the kink, and a fall by 2 or more, at every n",
    run=run,
)
