"""The attribution of every layer: features, errors and gradients, each like G."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deepspec.attribution.side_of_g import NothingThere
from deepspec.attribution.split import SplitAttribution
from deepspec.class_structure.array import ClassArray
from deepspec.layerwise import Layer, Layers, LayerStructure, MeanProducts, NeuralCollapse
from deepspec.layerwise.structure import layer_structure
from deepspec.storage.display import Result

#: The arrays of a layer, in the order of tables.
ARRAYS = ("features", "errors", "gradients")
Split = Callable[[ClassArray, str, Path | None], SplitAttribution]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LayerAttribution(Result):
    """What was found in one layer.

    Attributes
    ----------
    kind, parameters, width_in, width_out, shared
        Of the layer; ``shared`` is how positions that share its weight counted.
    features, errors, gradients
        H, Δ and G^l taken apart, with knockouts, nulls and verdicts; ``None`` where all vectors
        are zero.
    neural_collapse
        NC1–NC4 of its inputs; ``None`` with fewer than two classes.
    mean_products
        How well h_c ⊗ δ_{c,c'} gives the mean gradients; ``None`` without a weight matrix.
    structure
        The layer's measures, and top spectra for figures; ``None`` where all vectors of features
        or errors are zero.
    notes
        What a reader of its numbers has to know.
    """

    kind: str
    parameters: int
    width_in: int
    width_out: int
    shared: str
    features: SplitAttribution | None
    errors: SplitAttribution | None
    gradients: SplitAttribution | None
    neural_collapse: NeuralCollapse | None
    mean_products: MeanProducts | None
    structure: LayerStructure | None
    notes: tuple[str, ...]

    def _words(self) -> list[str]:
        words = [f"{self.kind} from {self.width_in:,} to {self.width_out:,}"]
        for name in ARRAYS:
            split: SplitAttribution | None = getattr(self, name)
            if split is not None:
                held = [f.claim for f in split.findings if f.answer == "supported"]
                words.append(f"{name}, supported: {', '.join(held) or 'nothing'}")
        return [*words, *self.notes[:3]]


def attribute_layers(
    layers: Layers, split: Split, folder: Path | None, weight_decay: float | None = None
) -> dict[str, LayerAttribution]:
    """Every layer by its name, in the order of use; ``split`` attributes one array."""
    found = {}
    for layer in layers:
        place = None if folder is None else folder / "layers" / f"{layer.place:03d}"
        found[layer.name] = _attribute_layer(layer, split, place, weight_decay)
    return found


def _attribute_layer(
    layer: Layer, split: Split, folder: Path | None, weight_decay: float | None
) -> LayerAttribution:
    splits: dict[str, SplitAttribution | None] = {}
    notes = list(layer.notes)
    for name in ARRAYS:
        place = None if folder is None else folder / name
        try:
            splits[name] = split(getattr(layer, name), f"{name} of {layer.name}", place)
        except NothingThere:
            splits[name] = None
            notes.append(f"its {name} are all zero")
    several = int((layer.problem.class_counts > 0).sum()) > 1
    return LayerAttribution(
        kind=layer.kind,
        parameters=layer.own.size,
        width_in=layer.width_in,
        width_out=layer.width_out,
        shared=layer.shared,
        features=splits["features"],
        errors=splits["errors"],
        gradients=splits["gradients"],
        neural_collapse=layer.neural_collapse() if several else None,
        mean_products=layer.mean_products() if layer.has_matrix else None,
        structure=None if None in splits.values() else layer_structure(layer, weight_decay),
        notes=tuple(notes),
    )
