"""Neural collapse (Papyan, Han, Donoho 2020) from features, labels and the classifier's weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
        ‖W/‖W‖ − M/‖M‖‖²: rows of the classifier against means.
    nc4
        The share of samples that the classifier puts elsewhere than the nearest mean does.
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

    Five numbers that fall to zero; :class:`NeuralCollapse` says which. Classes without samples
    are left out.

    Raises
    ------
    ValueError
        If fewer than two classes have samples.

    >>> eye = torch.eye(3, dtype=torch.float64)
    >>> measured = neural_collapse(eye, torch.arange(3), 3 * eye - 1)
    >>> [round(value, 9) + 0.0 for value in vars(measured).values()]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    features, weight = features.detach().double(), weight.detach().double()
    present, place = torch.unique(labels, return_inverse=True)
    classes = len(present)
    if classes < 2:
        raise ValueError(f"expected samples of at least 2 classes, got {classes}")
    counts = torch.bincount(place).double()
    means = torch.zeros(classes, features.shape[1], dtype=features.dtype, device=features.device)
    means.index_add_(0, place, features)
    means /= counts[:, None]
    centred = means - means.mean(dim=0)
    within = features - means[place]
    # tr(Σ_W Σ_B⁺) = Σ over directions of the between part; Σ_B = MᵀM/C has rank C − 1.
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    kept = singular > singular[0] * 1e-10
    spread = (within @ directions[kept].T).square().mean(dim=0)
    nc1 = float((spread / (singular[kept].square() / classes)).sum()) / classes
    norms = centred.norm(dim=1)
    unit = centred / norms.clamp_min(torch.finfo(torch.float64).tiny)[:, None]
    off = ~torch.eye(classes, dtype=torch.bool, device=features.device)
    rows = weight[present]
    gap = rows / rows.norm() - centred / centred.norm()
    shift = 0 if bias is None else bias.detach().double()[present]
    chosen = (features @ rows.T + shift).argmax(dim=1)
    nearest = torch.cdist(features, means).argmin(dim=1)
    return NeuralCollapse(
        nc1=nc1,
        nc2_norms=float(norms.std(correction=0) / norms.mean()),
        nc2_angles=float((unit @ unit.T + 1 / (classes - 1))[off].abs().mean()),
        nc3=float(gap.square().sum()),
        nc4=float((chosen != nearest).double().mean()),
    )
