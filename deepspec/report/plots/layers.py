"""The figures of a report on layers, from kept numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from deepspec.layerwise import LayerStructure
from deepspec.layerwise.structure import MOST
from deepspec.report.plots.by_layer import knockouts, screes_by_layer
from deepspec.report.plots.curvature import spectra_of_blocks

SCREES = {
    "features": ("H", "$H_{\\mathrm{class}}$"),
    "errors": ("Δ", "$Δ_{\\mathrm{class}}$", "$Δ_{\\mathrm{class}} + Δ_{\\mathrm{cross}}$"),
}


def layer_figures(layers: Sequence[LayerStructure]) -> dict[str, Figure]:
    """Figs. 7–13 of Papyan (2020) by the names of their files; those there are numbers for."""
    found: dict[str, Figure] = {}
    if not layers:
        return found
    C = layers[0].num_classes
    for what, names in SCREES.items():
        tops = {one.name: getattr(one, what) for one in layers}
        pairs = {name: (top.before[:MOST], top.left[:MOST]) for name, top in tops.items()}
        found[f"layers-{what}-knockout"] = knockouts(pairs, C, names[1])
        several = {n: (t.before, t.of_class, t.of_means)[: len(names)] for n, t in tops.items()}
        found[f"layers-{what}-scree"] = screes_by_layer(several, names, 3 * C, whiskers=C)
    weights = {w.layer: (w.before, w.projected) for w in (o.weight for o in layers) if w}
    if weights:
        found["layers-weights-knockout"] = knockouts(weights, C, "$W_{\\mathrm{class}}$")
    blocks = [one.curvature for one in layers if one.curvature is not None]
    if blocks:
        found["layers-curvature"] = spectra_of_blocks(blocks)
    return found
