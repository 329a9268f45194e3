"""What class means make of every layer's spectra, as numbers that can be kept, drawn and told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.gram import descending
from deepspec.layerwise.agreement import BlockAgreement, block_agreement
from deepspec.layerwise.layer import Layer
from deepspec.layerwise.table import FORMED_UP_TO, MEASURES, layer_measures
from deepspec.layerwise.weights import WeightKnockout
from deepspec.storage.display import Result

#: So many eigenvalues are kept, and at least C² + C.
MOST = 60
KINDS = ("kfac", "cfac", "ekfac")
WEIGHT = {
    "W gap": "s_C/s_{C+1} of the weight's singular values",
    "W gap left": "the same without the singular vectors of W_class",
    "stationarity": "‖∇L + ηW‖/‖ηW‖: only near 0 does W_class say where W comes from",
}
#: λ_C/λ_{C+1} from which on C outliers stand clear of a bulk.
CLEAR = 1.25
#: λ_2/λ_C of class means up to which they are nearly orthogonal and alike.
ORTHOGONAL = 4.0


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TopSpectra(Result):
    """The largest eigenvalues of a second moment and of what makes them, each descending.

    Attributes
    ----------
    before
        Of the second moment itself.
    left
        With the range of the class means projected out of it.
    of_class, of_means
        Of the class means' part; of class and cross-class means together.
    """

    before: Float[Tensor, " k"]
    left: Float[Tensor, " l"]
    of_class: Float[Tensor, " r"]
    of_means: Float[Tensor, " s"]

    def _words(self) -> list[str]:
        return [f"{float(self.before.sum()):.3g} in the {len(self.before)} largest"]


def top_spectra(array: ClassArray) -> TopSpectra:
    """The largest eigenvalues of an array's second moment, and of its means (Papyan 2020, §7).

    Raises
    ------
    MemoryError
        If the Gram matrix does not fit.

    >>> vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    >>> found = top_spectra(ClassArray(vectors, torch.tensor([0, 0, 1])))
    >>> found.of_class.numpy().round(6)   # 2/3 of 2², 1/3 of 2²
    array([2.666667, 1.333333])
    """
    most = max(MOST, array.num_classes * (array.num_classes + 1))
    return TopSpectra(
        before=array.eigenvalues()[:most].cpu(),
        left=array.knock_out("between_class", how="projection")[:most].cpu(),
        of_class=eigenvalues_of_means(array, "between_class")[:most],
        of_means=eigenvalues_of_means(array, "between_class", "cross_class")[:most],
    )


def eigenvalues_of_means(array: ClassArray, *parts: str) -> Float[Tensor, " r"]:
    """The eigenvalues of a sum of parts that are made of means."""
    basis = torch.cat([array.projector(part).basis for part in parts], dim=1)  # type: ignore[attr-defined]
    return descending(array.gram.inside(basis)).clamp_min(0.0).cpu()


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class LayerStructure(Result):
    """One layer: its measures, and the spectra they are read from.

    Attributes
    ----------
    name, kind, num_classes
        Of the layer, and C.
    measures
        By the names of :data:`~deepspec.layerwise.table.MEASURES`, and of the weight's knockout;
        NaN where one has no meaning.
    features, errors
        Spectra of H and Δ.
    weight
        W before and after its class part is knocked out; ``None`` without a weight decay.
    curvature
        Approximations beside G^l; ``None`` where they were not compared, and
        ``without_curvature`` says why.
    """

    name: str
    kind: str
    num_classes: int
    measures: dict[str, float]
    features: TopSpectra
    errors: TopSpectra
    weight: WeightKnockout | None
    curvature: BlockAgreement | None
    without_curvature: str

    def _words(self) -> list[str]:
        shown = [f"{name} {v:.3g}" for name, v in self.measures.items() if not math.isnan(v)]
        return [f"{self.name} ({self.kind})", *shown[:6]]


def layer_structure(layer: Layer, weight_decay: float | None = None) -> LayerStructure:
    """Measure one layer (Papyan 2020, §7).

    Parameters
    ----------
    layer
        Of :class:`deepspec.Layers`.
    weight_decay
        That the net was trained with: then W is held against its class part.

    Raises
    ------
    MemoryError
        If an array or its Gram matrix does not fit.
    ValueError
        If the weight decay is not above zero.
    """
    measures, weight, curvature, why = layer_measures(layer), None, None, ""
    if weight_decay is not None and layer.has_matrix:
        weight = layer.weight.knock_out(weight_decay)
        measures |= dict(zip(WEIGHT, _of_weight(weight, layer.problem.num_classes), strict=True))
    rows = layer.gradients.rows.size
    if not layer.has_matrix:
        why = f"{layer.name} has no weight matrix"
    elif rows > FORMED_UP_TO:
        why = f"n·C = {rows:,} is above {FORMED_UP_TO:,}"
    else:
        curvature = block_agreement(layer, KINDS)
    return LayerStructure(
        name=layer.name,
        kind=layer.kind,
        num_classes=layer.problem.num_classes,
        measures=measures,
        features=top_spectra(layer.features),
        errors=top_spectra(layer.errors),
        weight=weight,
        curvature=curvature,
        without_curvature=why,
    )


def _of_weight(found: WeightKnockout, C: int) -> tuple[float, float, float]:
    def gap(values: Float[Tensor, " k"]) -> float:
        there = len(values) > C and float(values[C]) > 0
        return float(values[C - 1] / values[C]) if there else math.nan

    return gap(found.before), gap(found.projected), found.stationarity


# ---- in words -----------------------------------------------------------------------------------


def layers_in_words(layers: Sequence[LayerStructure]) -> str:
    """One sentence: where class means leave the bulk, where they are orthogonal, what predicts G^l.

    Layers are counted from the input, from 1; those without a weight matrix are left out, unless
    there are no others. Outliers are there if λ_C/λ_{C+1} of H is above 1.25 and class means are
    what is missing once they are gone: projecting them out lowers it below that.
    """
    chosen = [
        one for one in layers if one.without_curvature == "" or "n·C" in one.without_curvature
    ]
    chosen = chosen or list(layers)
    if not chosen:
        return "There are no layers."
    told = [_outliers(chosen), _orthogonality(chosen), _curvature(chosen)]
    sentence = "; ".join(told)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _outliers(layers: Sequence[LayerStructure]) -> str:
    def clear(one: LayerStructure) -> bool:
        return one.measures["H gap"] > CLEAR and not one.measures["H gap left"] > CLEAR

    there = [clear(one) for one in layers]
    return _from(there, layers, "class means leave the bulk", "class means stand clear of the bulk")


def _orthogonality(layers: Sequence[LayerStructure]) -> str:
    ratios = [one.measures["Δ whitening"] for one in layers]
    limit = f"(λ₂/λ_C of Δ_class above {ORTHOGONAL:g})"
    if all(math.isnan(ratio) for ratio in ratios):
        return "the error means are too few to be compared"
    # At the logits errors sum to zero: there are C − 1 means, and no ratio to judge by.
    kept = 0
    for ratio in reversed(ratios):
        if ratio > ORTHOGONAL:
            break
        kept += 1
    if not any(ratio <= ORTHOGONAL for ratio in ratios[len(ratios) - kept :]):
        kept = 0
    if kept == len(layers):
        return f"the error means stay nearly orthogonal at every layer (λ₂/λ_C ≤ {ORTHOGONAL:g})"
    if not kept:
        return f"the error means are not orthogonal at any of the last layers {limit}"
    return f"the error means lose their orthogonality below {_named(layers, -kept)} {limit}"


def _from(there: Sequence[bool], layers: Sequence[LayerStructure], verb: str, some: str) -> str:
    """Where something begins, if from there on it is everywhere."""
    if not any(there):
        return f"{some} at no layer"
    first = there.index(True)
    if all(there[first:]):
        return f"{verb} at {_named(layers, first)}"
    places = [str(place + 1) for place, yes in enumerate(there) if yes]
    return f"{some} at layer{'s' if len(places) > 1 else ''} {', '.join(places)} only"


def _curvature(layers: Sequence[LayerStructure]) -> str:
    compared = [one.curvature for one in layers if one.curvature is not None]
    if not compared:
        return f"CFAC and KFAC were not compared with G^l: {layers[-1].without_curvature}"
    factors = {
        kind: math.exp(float(torch.tensor([b[kind].log_ratio_top for b in compared]).nanmedian()))
        for kind in ("cfac", "kfac")
    }
    cfac, kfac = (_off(factors[kind]) for kind in ("cfac", "kfac"))
    return f"CFAC predicts the outliers of G^l {cfac}, KFAC {kfac} (medians over layers)"


def _off(factor: float) -> str:
    if math.isnan(factor):
        return "nowhere: it has none"
    return f"within {factor - 1:.0%}" if factor < 1.5 else f"off by a factor of {factor:.1f}"


def _named(layers: Sequence[LayerStructure], place: int) -> str:
    place %= len(layers)
    return f"layer {place + 1} of {len(layers)} ({layers[place].name})"


def table_of_layers(layers: Sequence[LayerStructure]) -> list[list[str]]:
    """One row a layer, one column a measure; the first row names the columns."""
    every = [n for n in (MEASURES | WEIGHT) if any(_known(one, n) for one in layers)]
    rows = [
        [f"{i} {one.name} ({one.kind})", *(_number(one, n) for n in every)]
        for i, one in enumerate(layers, 1)
    ]
    return [["layer", *every], *rows]


def _known(one: LayerStructure, name: str) -> bool:
    return not math.isnan(one.measures.get(name, math.nan))


def _number(one: LayerStructure, name: str) -> str:
    return f"{one.measures[name]:.3g}" if _known(one, name) else "–"
