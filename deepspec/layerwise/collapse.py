"""Neural collapse (Papyan, Han, Donoho 2020) from features, labels and the classifier's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.arguments import check_numbers
from deepspec.storage.display import Result


@dataclass(frozen=True, repr=False, kw_only=True)
class NeuralCollapse(Result):
    """Five measures of how far features are from a simplex of class means; all fall to zero.

    With μ_c the class means, μ_G the mean of those, M = (μ_c − μ_G)_c:

    Attributes
    ----------
    nc1
        tr(Σ_W Σ_B⁺)/C: scatter within classes against scatter between them.
    nc2_norms
        The standard deviation of ‖μ_c − μ_G‖ over its mean.
    nc2_angles
        The mean of |cos(μ_c − μ_G, μ_c' − μ_G) + 1/(C − 1)| over c ≠ c'.
    nc3
        ‖W/‖W‖ − M/‖M‖‖²: rows of the classifier against means. Of a hidden layer, the mean
        squared sine of the angles between the span of the means and the weight's top right
        singular vectors, as many (Rangamani et al. 2023); NaN without a weight.
    nc4
        The share of samples that the classifier (the *net*, of a hidden layer) puts elsewhere
        than the nearest mean does.
    """

    nc1: float
    nc2_norms: float
    nc2_angles: float
    nc3: float
    nc4: float


def neural_collapse(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    weight: Float[Tensor, "C d"],
    bias: Float[Tensor, " C"] | None = None,
) -> NeuralCollapse:
    """How far features and classifier are from a simplex of classes (Papyan, Han, Donoho 2020).

    Classes without samples are left out.

    Raises
    ------
    ValueError
        If fewer than two classes have samples.

    >>> eye = torch.eye(3, dtype=torch.float64)
    >>> measured = neural_collapse(eye, torch.arange(3), 3 * eye - 1)
    >>> [round(value, 9) + 0.0 for value in vars(measured).values()]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    check_numbers(features, ("n", "d"), "features")
    check_numbers(labels, (len(features),), "labels", whole=True)
    check_numbers(weight, ("C", features.shape[1]), "weight")
    if bias is not None:
        check_numbers(bias, (len(weight),), "bias")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(weight)):
        raise ValueError(
            f"expected labels in 0..{len(weight) - 1}, one for each row of weight, got "
            f"{int(labels.min())} to {int(labels.max())}"
        )
    features, weight = features.detach().double(), weight.detach().double()
    means = _class_means(features, labels)
    rows = weight[means.present]
    gap = rows / rows.norm() - means.centred / means.centred.norm()
    shift = 0 if bias is None else bias.detach().double()[means.present]
    chosen = means.present[(features @ rows.T + shift).argmax(dim=1)]
    return NeuralCollapse(
        **_variability_and_simplex(features, means),
        nc3=float(gap.square().sum()),
        nc4=_elsewhere(features, means, chosen),
    )


def neural_collapse_inside(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    weight: Float[Tensor, "o d"] | None,
    chosen: Int[Tensor, " n"],
) -> NeuralCollapse:
    """The same of a hidden layer, whose weight has no row for each class.

    ``nc1`` and ``nc2`` are as in :func:`neural_collapse`, and

    - ``nc3``: the mean squared sine of the angles between the span of the centred class means
      and the weight's top right singular vectors, as many (Rangamani et al. 2023); NaN without
      a weight
    - ``nc4``: the share of samples that the *net* puts elsewhere (``chosen``) than the nearest
      class mean of this layer does

    Raises
    ------
    ValueError
        If fewer than two classes have samples.

    >>> eye = torch.eye(3, dtype=torch.float64)
    >>> found = neural_collapse_inside(eye, torch.arange(3), 3 * eye - 1, torch.arange(3))
    >>> [round(value, 9) + 0.0 for value in vars(found).values()]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    features = features.detach().double()
    means = _class_means(features, labels)
    nc3 = float("nan")
    if weight is not None:
        _, singular, span = torch.linalg.svd(means.centred, full_matrices=False)
        span = span[singular > singular[0] * 1e-10]
        _, _, turn = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        cosines = span @ turn[: len(span)].T
        nc3 = 1.0 - float(cosines.square().sum()) / len(span) if len(span) else nc3
    return NeuralCollapse(
        **_variability_and_simplex(features, means),
        nc3=nc3,
        nc4=_elsewhere(features, means, chosen),
    )


def makes(
    logits: Float[Tensor, "n C"],
    features: Float[Tensor, "n d"],
    weight: Float[Tensor, "o d"],
    bias: Float[Tensor, " o"] | None,
) -> bool:
    """Whether a layer is the classifier: the logits are what it makes of its features."""
    if len(weight) != logits.shape[1]:
        return False
    found = features @ weight.T + (0 if bias is None else bias)
    close = torch.finfo(features.dtype).eps ** 0.5 * float(logits.abs().max())
    return float((found - logits).abs().max()) <= close


class _Means(NamedTuple):
    """Class means of the classes that have samples; ``place`` is each sample's among them."""

    present: Int[Tensor, " r"]
    place: Int[Tensor, " n"]
    means: Float[Tensor, "r d"]
    centred: Float[Tensor, "r d"]


def _class_means(features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> _Means:
    present, place = torch.unique(labels, return_inverse=True)
    classes = len(present)
    if classes < 2:
        raise ValueError(f"expected samples of at least 2 classes, got {classes}")
    counts = torch.bincount(place).double()
    means = torch.zeros(classes, features.shape[1], dtype=features.dtype, device=features.device)
    means.index_add_(0, place, features)
    means /= counts[:, None]
    return _Means(present, place, means, means - means.mean(dim=0))


def _variability_and_simplex(features: Float[Tensor, "n d"], found: _Means) -> dict[str, float]:
    classes = len(found.present)
    within = features - found.means[found.place]
    # tr(Σ_W Σ_B⁺) = Σ over directions of the between part; Σ_B = MᵀM/C has rank C − 1.
    _, singular, directions = torch.linalg.svd(found.centred, full_matrices=False)
    kept = singular > singular[0] * 1e-10
    spread = (within @ directions[kept].T).square().mean(dim=0)
    nc1 = float((spread / (singular[kept].square() / classes)).sum()) / classes
    norms = found.centred.norm(dim=1)
    unit = found.centred / norms.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    off = ~torch.eye(classes, dtype=torch.bool, device=features.device)
    return {
        "nc1": nc1,
        "nc2_norms": float(norms.std(correction=0) / norms.mean()),
        "nc2_angles": float((unit @ unit.T + 1 / (classes - 1))[off].abs().mean()),
    }


def _elsewhere(features: Float[Tensor, "n d"], found: _Means, chosen: Int[Tensor, " n"]) -> float:
    """The share of samples whose nearest class mean is another class's than the chosen one."""
    nearest = found.present[torch.cdist(features, found.means).argmin(dim=1)]
    return float((chosen != nearest).double().mean())
