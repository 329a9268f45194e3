"""Figures of an attribution; nothing else in the package draws."""

from collections.abc import Callable

from matplotlib.figure import Figure

from deepspec.attribution import Attribution, SplitAttribution
from deepspec.report.plots.curvature import (
    block_diagonals_over_training,
    curvature_by_depth,
    curvature_spectra,
)
from deepspec.report.plots.layers import layer_figures
from deepspec.report.plots.maps import FEWEST_POINTS, means_map
from deepspec.report.plots.outliers import parts_chart, scree, verdict_chart
from deepspec.report.plots.spectra import hessian_and_its_summands, log_spectrum_of_g

__all__ = [
    "block_diagonals_over_training",
    "curvature_by_depth",
    "curvature_spectra",
    "figures",
    "hessian_and_its_summands",
    "log_spectrum_of_g",
    "means_map",
    "parts_chart",
    "scree",
    "verdict_chart",
]

OF_SPLIT: dict[str, Callable[[SplitAttribution], Figure]] = {
    "verdicts": verdict_chart,
    "log-spectrum": log_spectrum_of_g,
    "parts": parts_chart,
    "hessian": hessian_and_its_summands,
    "scree": scree,
}


def figures(attribution: Attribution) -> dict[str, Figure]:
    """Every figure, by the name of its file: ``<split>-<what>``.

    No map of fewer than 20 means: t-SNE places so few anywhere.
    """
    found = {}
    for name, split in attribution.splits.items():
        for what, draw in OF_SPLIT.items():
            if what == "hessian" and not split.hessian_spectra:
                continue
            found[f"{name}-{what}"] = draw(split)
        if split.means is not None and len(split.means.cells) >= FEWEST_POINTS:
            found[f"{name}-means-map"] = means_map(split.means, attribution.settings.seed)
    return found | layer_figures(attribution.structures)
