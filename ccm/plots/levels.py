"""Figures of the theory: the finite-sample law over a histogram, and level 1 beside level 3."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ccm.bayes import bayes_spectrum
from ccm.finite_sample import FiniteSampleLaw
from ccm.model import CanonicalClassificationModel
from ccm.resume import write_atomically
from ccm.symmetric import symmetric_spectrum

# Okabe–Ito colours, which the colour-blind can tell apart; markers and dashes say it again in grey.
COLOURS = {"outliers": "#D55E00", "mini_bulk": "#0072B2", "bulk": "#4D4D4D"}
MARKERS = {"outliers": "o", "mini_bulk": "s", "bulk": "^"}
NAMES = {"outliers": "outliers", "mini_bulk": "mini-bulk", "bulk": "bulk"}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, drawn without a screen.

    Examples
    --------
    >>> new_figure(2, 1).get_size_inches().tolist()
    [2.0, 1.0]
    """
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes) -> None:
    """What all panels share: no box, small ticks.

    Examples
    --------
    >>> axes = new_figure(1, 1).subplots()
    >>> tidy(axes)
    >>> axes.spines["top"].get_visible()
    False
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure, the format by the file's ending; atomically.

    Raises
    ------
    ValueError
        If Matplotlib does not know the format.
    OSError
        If the folder does not exist or cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(new_figure(1, 1), Path(folder) / "a.png")
    ...     [path.name for path in Path(folder).iterdir()]
    ['a.png']
    """
    path = Path(path)
    known = figure.canvas.get_supported_filetypes()
    ending = path.suffix.removeprefix(".")
    if ending not in known:
        raise ValueError(f"cannot write a figure as {path.name!r}; endings: {', '.join(known)}")
    content = io.BytesIO()
    figure.savefig(content, format=ending)
    write_atomically(path, content.getvalue())


def plot_bulk(law: FiniteSampleLaw, eigenvalues: Float[np.ndarray, " DC"]) -> Figure:
    """The finite-sample law over a histogram of simulated eigenvalues, the outliers marked.

    Raises
    ------
    ValueError
        If there are not D·C eigenvalues.

    Examples
    --------
    >>> from ccm import empirical_fim, finite_sample_law, symmetric_probabilities
    >>> law = finite_sample_law(CanonicalClassificationModel(20, 2, 2.0), 0.3, per_class=20)
    >>> X, y = law.model.sample(law.per_class, seed=0)
    >>> fim = empirical_fim(X, symmetric_probabilities(2, 0.3)[y])
    >>> plot_bulk(law, np.linalg.eigvalsh(fim)).axes[0].get_ylabel()
    'density'
    """
    model = law.model
    values = np.sort(np.asarray(eigenvalues, dtype=float))[::-1]
    if values.size != model.size:
        raise ValueError(
            f"expected the D·C = {model.size} eigenvalues of one FIM, got {values.size}"
        )
    values = values[: model.dim * (model.num_classes - 1)]
    values = values[values > 1e-9 * max(values.max(), 1e-300)]
    share = values.size / (model.dim * (model.num_classes - 1))
    figure = new_figure(6.4, 3.5)
    axes = figure.subplots()
    top = float(law.edges[-1, 1]) if len(law.edges) else 1.0
    bins = np.linspace(0, top * 1.02, 70)
    counts, _ = np.histogram(values, bins)
    axes.stairs(
        counts / values.size * share / np.diff(bins),
        bins,
        fill=True,
        color="#BBBBBB",
        label="simulated bulk",
    )
    for low, high in law.edges:
        x = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, 400))) / 2
        label = "level 2: density" if high == top else None
        axes.plot(x, law.density(x), color="black", lw=1.5, label=label)
    ceiling = axes.get_ylim()[1]
    level_1 = symmetric_spectrum(model, law.alpha)
    for group in ("outliers", "mini-bulk")[: 1 if model.num_classes == 2 else 2]:
        key = group.replace("-", "_")
        colour, location = COLOURS[key], law.location(group)
        expected = level_1.level(group).value
        axes.plot(
            [expected],
            [0.02 * ceiling],
            marker=MARKERS[key],
            ms=6,
            mfc="white",
            color=colour,
            ls="none",
            label=f"{group}: level 1",
            clip_on=False,
            zorder=4,
        )
        if location is not None:
            axes.axvline(
                location,
                0,
                0.6,
                color=colour,
                lw=1.4,
                ls="-" if key == "outliers" else "--",
                label=f"{group}: level 2",
            )
    beyond = values[values > top]
    axes.plot(
        beyond,
        np.full(beyond.size, 0.08 * ceiling),
        "|",
        color="black",
        ms=11,
        label="simulated, above the bulk",
    )
    axes.set_xlabel("eigenvalue of the FIM")
    axes.set_ylabel("density")
    axes.set_ylim(0, ceiling)
    axes.set_xlim(left=0)
    axes.set_title(
        f"D = {model.dim}, C = {model.num_classes}, N = {law.per_class} a class, "
        f"t = {model.snr:.4g}, α = {law.alpha:.3g}",
        fontsize=9,
    )
    axes.legend(fontsize=7, frameon=False, loc="upper right")
    tidy(axes)
    return figure


def plot_symmetric_against_bayes(
    model: CanonicalClassificationModel, snrs: Float[np.ndarray, " g"]
) -> Figure:
    """Level 1 beside level 3, in units of the true bulk α/(C-1): where symmetry fails.

    Level 1 takes the Bayes classifier's α. ``model`` gives D and C; its own SNR is not used.

    Raises
    ------
    ValueError
        If fewer than two SNRs are given.

    Examples
    --------
    >>> model = CanonicalClassificationModel(10, 3, 1.0)
    >>> len(plot_symmetric_against_bayes(model, np.array([0.0, 1.0, 2.0])).axes)
    2
    """
    snrs = np.asarray(snrs, dtype=float)
    if snrs.size < 2:
        raise ValueError("a figure against SNR needs at least two SNRs")
    D, C = model.dim, model.num_classes
    curves: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for t in snrs:
        here = CanonicalClassificationModel(D, C, t)
        alpha = here.bayes_alpha()
        unit = alpha / (C - 1)
        for source, spectrum in (
            ("level 1", symmetric_spectrum(here, alpha)),
            ("level 3", bayes_spectrum(here)),
        ):
            for level in spectrum.levels:
                if level.label != "null":  # beyond t = 54 all is zero, and there is no ratio
                    ratio = level.value / unit if unit else math.nan
                    curves.setdefault(f"{source}|{level.label}", []).append(ratio)
                    counts[f"{source}|{level.label}"] = level.multiplicity
    figure = new_figure(7.2, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    dashes = {"antisymmetric": "-", "standard": "--", "symmetric": "-.", "trivial": ":"}
    for axes, source, title in (
        (panels[0], "level 1", "level 1: symmetric probabilities"),
        (panels[1], "level 3", "level 3: Bayes classifier (exact)"),
    ):
        for name, curve in curves.items():
            if not name.startswith(source):
                continue
            label = name.split("|")[1]
            group, _, part = label.partition(": ")
            key = group.replace("-", "_")
            axes.plot(
                snrs,
                curve,
                color=COLOURS[key],
                ls=dashes.get(part, "-"),
                lw=1.6,
                marker=MARKERS[key],
                ms=4,
                mfc="white",
                markevery=max(1, snrs.size // 6),
                label=f"{label}  (×{counts[name]})",
            )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("signal-to-noise ratio t")
        axes.legend(fontsize=7, frameon=False, loc="upper left")
        tidy(axes)
    panels[0].set_yscale("log")
    panels[0].set_ylim(top=panels[0].get_ylim()[1] * 12)
    panels[0].set_ylabel("eigenvalue / (α/(C-1)), the true bulk")
    figure.suptitle(
        f"C = {C}, D = {D}: level 1 has one outlier too many and too large a bulk", fontsize=9
    )
    return figure
