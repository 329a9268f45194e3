"""The report of an attribution: one HTML file that stands by itself, and what it was made from."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from deepspec.attribution import Attribution
from deepspec.report.layers_html import section
from deepspec.report.plots import figures
from deepspec.report.plots.style import png
from deepspec.storage.files import plain_name
from deepspec.storage.results import new_folder, save_result

TEMPLATE = "report.html.jinja"
TITLE = "What causes the spectrum of this net"
CAPTIONS = {
    "verdicts": (
        "Every claim of the papers on this net. Bars: the share of the feature that goes when its "
        "cause is subtracted, in the colour of the verdict; the upright stroke: when it is "
        "projected out. Squares, diamonds and crosses are nulls: what goes when something else of "
        "the same kind is removed, that by chance has nothing to do with the cause. A bar to the "
        "right of the dashed line and clearly beyond every null supports the claim; where a null "
        "reaches as far, the cause is not shown to be it. The star is the net as it was built, "
        "for comparison."
    ),
    "log-spectrum": (
        "The spectrum of G on a logarithmic axis. Top: colours share out each eigenvalue among "
        "the parts of G (within a bin in proportion to its height), and each of the top C has the "
        "mark of its main cause, at three heights only to tell neighbours apart. Below: what is "
        "left (grey, and black sticks) when one part is subtracted, beside G as it was (black "
        "outline, white triangles). Dashed: the largest eigenvalue that scatter within classes "
        "has by itself."
    ),
    "parts": (
        "How much of G each part is: of its trace in both conventions, and of each of its top "
        "eigenvalues, vᵀ(part)v/λ for eigenvector v."
    ),
    "hessian": (
        "The Hessian and its two summands. Triangles: the top C eigenvalues; blue: all others. "
        "Right, where E is much narrower than the rest: the middle enlarged to the width of E, "
        "which has eigenvalues of both signs; its bins are narrower, so fewer eigenvalues are in "
        "each."
    ),
    "scree": (
        "Left: eigenvalues of G beside those of all mean gradients and of class means alone, "
        "always below. Right: how far each prediction is from the truth; hollow: "
        "below 0.001 %."
    ),
    "means-map": (
        "A map (t-SNE) of the mean gradients of class c under label c', from their distances "
        "alone. If marks of one kind gather on the left, gradients cluster by class; if on the "
        "right, by cross-class. Left, large with a black edge: class means. Hollow: c = c', "
        "nearer to zero the better the fit."
    ),
}


def render(
    attribution: Attribution, images: dict[str, bytes], title: str, extra: Mapping[str, Any]
) -> str:
    """The HTML page, with its figures in it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = resources.files("deepspec.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
    embedded = {
        name: Markup("data:image/png;base64,") + base64.b64encode(content).decode()
        for name, content in images.items()
    }
    tables = attribution.tables()
    return environment.from_string(source).render(
        title=title,
        found=attribution,
        paragraphs=[part.split("\n- ") for part in attribution.summary().split("\n\n")],
        images=embedded,
        captions=CAPTIONS,
        by_layer=section(attribution.structures, images),
        extra={name: json.dumps(value) for name, value in extra.items()},
        tables={
            name: {k: v for k, v in tables.items() if k.endswith(f"({name})")}
            for name in attribution.splits
        },
    )


def write_report(
    attribution: Attribution,
    folder: str | Path,
    *,
    overwrite: bool = False,
    title: str = TITLE,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``report.html``, the figures as PNG, ``manifest.json`` and the arrays.

    The folder can be read back with :meth:`Attribution.load`. It appears only once it is complete.

    Parameters
    ----------
    attribution
        What to report.
    folder
        A new one, or with ``overwrite`` one to replace.
    title
        Of the page.
    extra
        More entries for the manifest, such as the command that ran; JSON can hold them.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    FileExistsError
        If the folder exists and is not to be overwritten; before any work.
    ValueError
        As :func:`fill`.
    """
    target = Path(folder)
    with new_folder(target, overwrite=overwrite) as place:
        fill(place, attribution, extra or {}, title)
    return target / "report.html"


def fill(
    place: Path, attribution: Attribution, extra: Mapping[str, Any], title: str = TITLE
) -> None:
    """The same into a folder that is there already, as :func:`new_folder` gives before the work.

    Raises
    ------
    ValueError
        If a split has a name that cannot be a part of a file's name, or none is called "train".
    """
    for name in attribution.splits:
        plain_name(name, "a split of the data")
    if "train" not in attribution.splits:
        raise ValueError(f'expected a split called "train", got {", ".join(attribution.splits)}')
    images = {name: png(figure) for name, figure in figures(attribution).items()}
    save_result(place, attribution, extra)
    for name, content in images.items():
        (place / plain_name(f"{name}.png", "a figure")).write_bytes(content)
    page = render(attribution, images, title, extra)
    (place / "report.html").write_text(page, encoding="utf-8")
