"""The figures by layers of Papyan (2020), Figs. 7–13, from one net of a sweep."""

from __future__ import annotations

import math

from deepspec.attribution.gauss_newton_claims import OUTLIER_MARGIN
from deepspec.class_structure import ClassArray
from deepspec.layerwise import Layers, curvature_agreement
from deepspec.layerwise.structure import eigenvalues_of_means
from deepspec.report.drawn import Drawn
from deepspec.report.plots.by_layer import knockouts, screes_by_layer
from deepspec.report.plots.curvature import curvature_by_depth, curvature_spectra
from deepspec.report.source import Source

MOST = 60
WITH_MATRIX = ("Linear", "Conv1d", "Conv2d")


def _layers(source: Source) -> Layers:
    return Layers(source.problems["train"])


def _arrays(source: Source, kind: str) -> dict[str, ClassArray]:
    """An array of each layer that has a matrix, features or errors."""
    layers = _layers(source)
    return {layer.name: getattr(layer, kind) for layer in layers if layer.kind in WITH_MATRIX}


def _knocked_out(source: Source, kind: str, part: str, symbol: str) -> Drawn:
    """Figs. 7 and 9: whether what a knockout leaves stays below where the bulk began."""
    found, gone, count = {}, {}, source.problems["train"].num_classes
    for name, array in _arrays(source, kind).items():
        before = array.eigenvalues()[:MOST].cpu()
        after = array.knock_out(part, how="projection")[:MOST].cpu()
        found[name] = before, after
        edge = float(before[count]) if len(before) > count else 0.0
        left = int((after > OUTLIER_MARGIN * edge).sum())
        there = int((before > OUTLIER_MARGIN * edge).sum())
        gone[name] = math.nan if not there else 1 - left / there
    last = list(gone.values())[-1]
    return Drawn(
        figure=knockouts(found, count, symbol),
        there=last > 0.5,
        found="of the outliers go: " + ", ".join(f"{n} {v:.0%}" for n, v in gone.items()),
    )


def features_knocked_out(source: Source) -> Drawn:
    """Fig. 7."""
    return _knocked_out(source, "features", "between_class", "$H_{\\mathrm{class}}$")


def errors_knocked_out(source: Source) -> Drawn:
    """Fig. 9."""
    return _knocked_out(source, "errors", "between_class", "$Δ_{\\mathrm{class}}$")


def _gaps(arrays: dict[str, ClassArray], count: int) -> dict[str, float]:
    """λ_C/λ_{C+1} by layer."""
    gaps = {}
    for name, array in arrays.items():
        values = array.eigenvalues()
        gaps[name] = float(values[count - 1] / values[count]) if len(values) > count else math.inf
    return gaps


def features_screes(source: Source) -> Drawn:
    """Fig. 8."""
    arrays, count = _arrays(source, "features"), source.problems["train"].num_classes
    found = {
        name: (array.eigenvalues().cpu(), eigenvalues_of_means(array, "between_class"))
        for name, array in arrays.items()
    }
    gaps = list(_gaps(arrays, count).values())
    return Drawn(
        figure=screes_by_layer(found, ("H", "$H_{\\mathrm{class}}$"), 3 * count),
        there=gaps[-1] > max(OUTLIER_MARGIN, gaps[0]),
        found="λ_C/λ_{C+1} by layer: " + ", ".join(f"{gap:.1f}" for gap in gaps),
    )


def errors_screes(source: Source) -> Drawn:
    """Fig. 10."""
    arrays, count = _arrays(source, "errors"), source.problems["train"].num_classes
    found = {
        name: (
            array.eigenvalues().cpu(),
            eigenvalues_of_means(array, "between_class"),
            eigenvalues_of_means(array, "between_class", "cross_class"),
        )
        for name, array in arrays.items()
    }
    share = {
        n: float(both[:count].sum() / whole[:count].sum()) for n, (whole, _, both) in found.items()
    }
    names = ("Δ", "$Δ_{\\mathrm{class}}$", "$Δ_{\\mathrm{class}} + Δ_{\\mathrm{cross}}$")
    return Drawn(
        figure=screes_by_layer(found, names, 3 * count),
        there=min(share.values()) > 0.5,
        found="class and cross-class means have, of the top C: "
        + ", ".join(f"{n} {v:.0%}" for n, v in share.items()),
    )


def approximations(source: Source, *, depth: bool = False) -> Drawn:
    """Fig. 12, and Fig. 11, which is its last layer beside the others."""
    found = curvature_agreement(_layers(source), ("kfac", "cfac"))
    ratios = found.by_depth("log_ratio_top")
    better = [c <= k for k, c in zip(ratios["kfac"], ratios["cfac"], strict=True)]
    return Drawn(
        figure=(curvature_by_depth if depth else curvature_spectra)(found),
        there=all(better),
        found="mean |log ratio| of the top C, by layer: "
        + "; ".join(
            f"{kind.upper()} " + ", ".join(f"{v:.2f}" for v in ratios[kind])
            for kind in ("kfac", "cfac")
        ),
    )


def approximations_by_depth(source: Source) -> Drawn:
    """Fig. 11 in numbers."""
    return approximations(source, depth=True)


def weights_knocked_out(source: Source) -> Drawn:
    """Fig. 13."""
    layers, decay = _layers(source), source.run.settings["training"]["weight_decay"]
    found, rest, gone = {}, {}, {}
    count = source.problems["train"].num_classes
    for name in layers.names:
        if layers[name].kind not in WITH_MATRIX:
            continue
        knocked = layers[name].weight.knock_out(decay)
        found[name] = knocked.before[:MOST], knocked.projected[:MOST]
        rest[name] = knocked.stationarity
        before = float(knocked.before[:count].sum())
        gone[name] = 1 - float(knocked.projected[:count].sum()) / before
    return Drawn(
        figure=knockouts(found, count, "$W_{\\mathrm{class}}$"),
        there=list(gone.values())[-1] > 0.5 and max(rest.values()) < 0.5,
        found="of the top C go: "
        + ", ".join(f"{n} {v:.0%}" for n, v in gone.items())
        + f"; |∇L + ηW|/|ηW| up to {max(rest.values()):.2f}",
    )
