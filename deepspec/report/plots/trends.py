"""Trends over training and sample size, with standard errors over seeds; maps over epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.dynamics.trends import OverSeeds, Trajectories, Trends
from deepspec.report.plots.maps import distances, embed
from deepspec.report.plots.style import GREY, MARKERS, PALETTE, grey_grid, new_figure, styled
from deepspec.seeds import Seed

LINES = ("-", "--", "-.", ":")


@styled
def separation(trajectories: Trajectories, trends: Trends) -> Figure:
    """How far G_cross and G_class lie from G_within, by epoch and by n (Papyan 2020, §6.2)."""
    sizes = sorted({n for n, _ in trajectories})
    epochs = sorted({m.epoch for ms in trajectories.values() for m in ms if m.epoch})
    figure, axes = new_figure(1, 2, 4.0, sharey=True)
    left, right = axes[0]
    for place, n in enumerate(sizes):
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        for name, line in (("distance", "-"), ("separation", "--"), ("class_separation", ":")):
            found = [_over(trajectories, n, epoch, name) for epoch in epochs]
            label = f"{n} per class" if line == "-" else None
            _curve(left, epochs, found, colour=colour, marker=marker, line=line, label=label)
    for place, epoch in enumerate(epochs):
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        found = [_over(trajectories, n, epoch, "distance") for n in sizes]
        _curve(right, sizes, found, colour=colour, marker=marker, line="-", label=f"epoch {epoch}")
    left.set_ylabel("decades from $G_{\\mathrm{within}}$")
    for panel, title, x, ticks in (
        (left, _title(trends.with_epoch, "epoch"), "epoch", epochs),
        (right, _title(trends.with_samples, "n"), "n per class", sizes),
    ):
        panel.set_xscale("log")
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.set_xlabel(x)
        panel.set_title(title)
        grey_grid(panel)
        handles, _ = panel.get_legend_handles_labels()
        if panel is left:
            handles += [
                Line2D([], [], color=GREY, ls="-", label="bulk of $G_{\\mathrm{cross}}$"),
                Line2D([], [], color=GREY, ls="--", label="mean of $G_{\\mathrm{cross}}$"),
                Line2D([], [], color=GREY, ls=":", label="mean of $G_{\\mathrm{class}}$"),
            ]
        panel.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=2,
            fontsize=8.5,
        )
    return figure


def _title(slopes: Mapping[int, OverSeeds], of: str) -> str:
    means = [s.mean for s in slopes.values() if not math.isnan(s.mean)]
    if not means:
        return f"by {of}"
    return f"by {of}: slopes {min(means):+.2f} … {max(means):+.2f}"


def _over(trajectories: Trajectories, n: int, epoch: int, name: str) -> OverSeeds:
    return OverSeeds.of(
        [
            getattr(moment, name)
            for (own, _), moments in trajectories.items()
            for moment in moments
            if own == n and moment.epoch == epoch
        ]
    )


def _curve(
    panel: object,
    x: Sequence[int],
    found: Sequence[OverSeeds],
    *,
    colour: str,
    marker: str,
    line: str,
    label: str | None,
) -> None:
    errors = [0.0 if math.isnan(f.standard_error) else f.standard_error for f in found]
    panel.errorbar(  # type: ignore[attr-defined]
        x,
        [f.mean for f in found],
        yerr=errors,
        color=colour,
        marker=marker,
        ls=line,
        ms=4.5,
        lw=1.1,
        capsize=2,
        label=label,
    )


@styled
def maps(moments: Sequence[SnapshotSpectra], titles: Sequence[str], seed: Seed = 0) -> Figure:
    """Maps of the mean gradients, coloured by c' above and by c below (Papyan 2019, Figs. 3–5).

    What each explains of them, of itself, is the number over its panel.

    Raises
    ------
    ValueError
        If there are no maps, for there are too many cells.
    """
    shown = [(m, title) for m, title in zip(moments, titles, strict=True) if m.means is not None]
    if not shown:
        raise ValueError("expected Gram matrices of the means, but there are too many classes")
    figure, axes = new_figure(2, len(shown), 4.6)
    classes: list[int] = []
    for column, (moment, title) in enumerate(shown):
        assert moment.means is not None
        names, table = distances(moment.means)
        points = embed(table, seed)
        classes = sorted({c for c, _ in names})
        for row, which in enumerate((1, 0)):
            panel = axes[row][column]
            for (c, other), (x, y) in zip(names, points, strict=True):
                if other == -1:
                    continue
                index = classes.index((c, other)[which])
                colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
                face = "white" if c == other else colour
                edge = colour if c == other else "white"
                panel.plot(x, y, marker, color=face, mec=edge, mew=0.5, ms=4.5)
            panel.set_xticks([])
            panel.set_yticks([])
            layout = moment.layout
            share = math.nan
            if layout is not None:
                share = layout.by_cross_class if which else layout.by_class
            word = "c'" if which else "c"
            panel.set_title(f"{title}\n{word}: {share:.0%}" if row == 0 else f"{word}: {share:.0%}")
    axes[0][0].set_ylabel("coloured by c'")
    axes[1][0].set_ylabel("coloured by c")
    handles = [
        Line2D([], [], ls="", marker=MARKERS[i % 10], color=PALETTE[i % 10], label=str(c))
        for i, c in enumerate(classes)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=10, handletextpad=0.1)
    return figure


@styled
def shares(trajectories: Trajectories) -> Figure:
    """What c and c' explain of the mean gradients, by epoch (Papyan 2019, Fig. 5, in numbers)."""
    sizes = sorted({n for n, _ in trajectories})
    figure, axes = new_figure(1, len(sizes), 2.7, sharey=True)
    for panel, n in zip(axes[0], sizes, strict=True):
        for place, (name, words) in enumerate((("by_class", "c"), ("by_cross_class", "c'"))):
            by_epoch: dict[int, list[float]] = {}
            for (own, _), moments in trajectories.items():
                for moment in moments if own == n else ():
                    if moment.layout is not None:
                        share = getattr(moment.layout, name)
                        by_epoch.setdefault(moment.epoch, []).append(share)
            found = [OverSeeds.of(values) for _, values in sorted(by_epoch.items())]
            x = np.arange(len(found)).tolist()
            colour, marker = PALETTE[place], MARKERS[place]
            _curve(panel, x, found, colour=colour, marker=marker, line=LINES[place], label=words)
            panel.set_xticks(x, [str(epoch) for epoch in sorted(by_epoch)])
        panel.set_title(f"{n} per class")
        panel.set_xlabel("epoch")
        grey_grid(panel)
    axes[0][0].set_ylabel("share explained beyond the other")
    axes[0][0].legend()
    return figure
