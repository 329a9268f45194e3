"""One row of numbers for each layer: what class means make of its spectra, and how."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.rows import RowsGram
from deepspec.krylov import top_eigenpairs
from deepspec.layerwise.agreement import layer_agreement
from deepspec.layerwise.layer import Layer

#: What each measure is, in a few words.
MEASURES = {
    "H gap": "λ_C/λ_{C+1} of the features' second moment H: well above 1 with C outliers",
    "H gap left": "the same once the class means' range is projected out",
    "H whitening": "λ_2/λ_C of H_class: 1 where centred class means are orthogonal and equal",
    "H global": "share of λ_1(H) that goes when the global mean is subtracted",
    "Δ gap": "λ_C/λ_{C+1} of the errors' second moment Δ",
    "Δ gap left": "the same once the range of the errors' class means is projected out",
    "Δ whitening": "λ_2/λ_C of Δ_class",
    "tr G": "trace of the layer's block of G",
    "G gap": "λ_C/λ_{C+1} of that block",
    "cos h⊗δ": "median cosine of h_c ⊗ δ_{c,c'} with the mean gradient g_{c,c'}",
    "KFAC": "mean |log ratio| of its top C eigenvalues to those of the block",
    "CFAC": "the same of CFAC",
    "nc1": "scatter within classes against scatter between them",
    "nc2_norms": "relative spread of the lengths of centred class means",
    "nc2_angles": "mean distance of their cosines from −1/(C − 1)",
    "nc3": "class means beside the weight: 0 where they are aligned",
    "nc4": "share of samples decided otherwise than by the nearest class mean",
}
# Up to so many rows all of a block's spectrum is cheap; above, its top comes from products.
FORMED_UP_TO = 3000
TOLERANCE = 1e-4


def layer_measures(layer: Layer) -> dict[str, float]:
    """Every measure of one layer by its name in :data:`MEASURES`; NaN where it has no meaning.

    Papyan (2020) §7 and Papyan, Han, Donoho (2020). KFAC and CFAC are held against G^l where the
    Gram matrix of its gradients is small (n·C at most 3,000).

    Raises
    ------
    MemoryError
        If an array or its Gram matrix does not fit.

    >>> import torch
    >>> from deepspec.layerwise.layers import Layers
    >>> from deepspec.problem import Problem
    >>> net = torch.nn.Linear(2, 2).double()
    >>> _ = torch.nn.init.zeros_(net.weight), torch.nn.init.zeros_(net.bias)
    >>> (layer,) = Layers(Problem(net, (torch.eye(2).double(), torch.tensor([0, 1]))))
    >>> found = layer_measures(layer)
    >>> round(found["tr G"], 9), round(found["cos h⊗δ"], 9)
    (1.0, 1.0)
    """
    C = layer.problem.num_classes
    found = {f"H {name}": value for name, value in _of_array(layer.features, C).items()}
    found |= {f"Δ {name}": value for name, value in _of_array(layer.errors, C).items()}
    found["tr G"] = gradient_trace(layer)
    small = layer.gradients.rows.size <= FORMED_UP_TO
    if small:
        top = layer.gradients.eigenvalues()
    else:
        gram = RowsGram(layer.gradients.rows)
        top = top_eigenpairs(gram, min(C + 1, gram.size), tol=TOLERANCE).values
    found["G gap"] = _ratio(top, C - 1, C)
    if layer.has_matrix:
        found["cos h⊗δ"] = float(layer.mean_products().cosine.nanmedian())
    if layer.has_matrix and small:
        bias = layer.bias_in_theta
        found["KFAC"] = layer_agreement(layer, layer.kfac(bias=bias)).log_ratio_top
        found["CFAC"] = layer_agreement(layer, layer.cfac(bias=bias)).log_ratio_top
    if int((layer.problem.class_counts > 0).sum()) > 1:
        found |= vars(layer.neural_collapse())
    return {name: found.get(name, math.nan) for name in MEASURES}


def gradient_trace(layer: Layer) -> float:
    """tr G^l = Σ w_{i,c'} ‖g_{i,c'}‖² of the layer's share, without any spectrum."""
    total = 0.0
    for batch in layer.batches():
        inputs = batch.inputs.double().unflatten(2, (layer.groups, -1))
        errors = batch.errors.double().unflatten(3, (layer.groups, -1))
        if inputs.shape[1] == 1:
            lengths = inputs.square().sum(dim=3)[:, 0] * layer.weight_in_theta
            lengths = lengths + float(layer.bias_in_theta)
            norms = (errors.square().sum(dim=4)[:, :, 0] * lengths[:, None]).sum(dim=2)
        else:
            norms = errors.sum(dim=2).square().sum(dim=(2, 3)) * layer.bias_in_theta
            if layer.weight_in_theta:
                norms = norms + torch.stack(
                    [
                        torch.einsum("ctgo,tgi->cgoi", delta, h).square().sum(dim=(1, 2, 3))
                        for delta, h in zip(errors, inputs, strict=True)
                    ]
                )
        total += float((batch.weights * norms).sum())
    return total


def _of_array(array: ClassArray, C: int) -> dict[str, float]:
    values = array.eigenvalues()
    without = array.knock_out("global_mean")
    return {
        "gap": _ratio(values, C - 1, C),
        "gap left": _ratio(array.knock_out("between_class", how="projection"), C - 1, C),
        "whitening": _ratio(array.eigenvalues("between_class"), 1, C - 1),
        "global": 1.0 - float(without[:1].sum() / values[0]) if len(values) else math.nan,
    }


def _ratio(values: Float[Tensor, " r"], one: int, other: int) -> float:
    """λ_one/λ_other, counted from 0; NaN where there are not so many."""
    return float(values[one] / values[other]) if max(one, other) < len(values) else math.nan
