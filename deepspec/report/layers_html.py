"""The section of a report on a net's layers, and a page of it alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from deepspec.layerwise import LayerStructure, layers_in_words
from deepspec.layerwise.structure import WEIGHT, table_of_layers
from deepspec.layerwise.table import MEASURES
from deepspec.report.plots.layers import layer_figures
from deepspec.report.plots.style import png
from deepspec.storage.display import Result
from deepspec.storage.results import new_folder, save_result

KNOCKOUT = (
    "One panel a layer, from the input; every point is one eigenvalue: where it was (across) and "
    "where the one of the same number is once the class means are projected out (up). On the line "
    "nothing changed. If the blue points, the top C, fall to the height of the orange ones, the "
    "class means were what made them outliers. "
)
SCREE = (
    "The largest eigenvalues by number. The whisker stands between the second and the C-th "
    "eigenvalue of the class means' part: the shorter, the nearer they are to orthogonal and "
    "equally long. "
)
CAPTIONS = {
    "layers-features-knockout": f"Features (Papyan 2020, Fig. 7). {KNOCKOUT}",
    "layers-features-scree": f"Features (Fig. 8). {SCREE}",
    "layers-errors-knockout": f"Backpropagated errors (Fig. 9). {KNOCKOUT}",
    "layers-errors-scree": f"Backpropagated errors (Fig. 10). {SCREE}",
    "layers-curvature": (
        "The largest eigenvalues of each layer's block of G (wide grey) beside its Kronecker "
        "approximations (Figs. 11 and 12); dashed: after the C-th. The nearer to grey, the better."
    ),
    "layers-weights-knockout": (
        f"Weights (Fig. 13), singular values. {KNOCKOUT}Only where stationarity is near 0 does "
        "this say where the weight comes from."
    ),
}
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Layer by layer</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; }
td, th { padding: .3rem .6rem; text-align: left; } .scroll { overflow-x: auto; }
table { font-size: .85rem; } img { max-width: 100%; }</style></head><body>
{{ section }}</body></html>
"""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LayersFound(Result):
    """All layers of a net, as they are kept beside their page."""

    layers: tuple[LayerStructure, ...]

    def _words(self) -> list[str]:
        return [layers_in_words(self.layers)]


def section(layers: Sequence[LayerStructure], images: dict[str, bytes]) -> Markup:
    """Sentence, table and figures of the layers, as HTML; nothing where there are none."""
    if not layers:
        return Markup()
    table = table_of_layers(layers)
    notes = [
        f"G^l and its approximations are not drawn for {one.name}: {one.without_curvature}."
        for one in layers
        if one.without_curvature
    ]
    told: dict[str, Any] = {
        "sentence": layers_in_words(layers),
        "table": table,
        "measures": {n: what for n, what in (MEASURES | WEIGHT).items() if n in table[0]},
        "captions": CAPTIONS,
        "notes": notes,
    }
    source = resources.files("deepspec.report").joinpath("layers.html.jinja")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(source.read_text(encoding="utf-8"))
    embedded = {
        name: Markup("data:image/png;base64,") + base64.b64encode(content).decode()
        for name, content in images.items()
    }
    return Markup(template.render(layers=told, images=embedded))


def write_layers(layers: Sequence[LayerStructure], folder: Path, *, overwrite: bool) -> Path:
    """Write ``layers.html``, its figures and the numbers into a new folder; returns the page.

    Raises
    ------
    FileExistsError
        If the folder exists and is not to be overwritten.
    """
    with new_folder(folder, overwrite=overwrite) as place:
        images = {name: png(figure) for name, figure in layer_figures(layers).items()}
        save_result(place, LayersFound(layers=tuple(layers)))
        for name, content in images.items():
            (place / f"{name}.png").write_bytes(content)
        page = (
            Environment(autoescape=True).from_string(PAGE).render(section=section(layers, images))
        )
        (place / "layers.html").write_text(page, encoding="utf-8")
    return folder / "layers.html"
