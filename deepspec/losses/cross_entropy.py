"""The cross-entropy, as PyTorch's ``cross_entropy`` weighs, smooths and ignores."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepspec.classifier.labels import class_indices
from deepspec.classifier.softmax import (
    mean_minus_each,
    mean_minus_each_transposed,
    softmax_residual,
)
from deepspec.losses.base import Loss, Targets


class CrossEntropy(Loss):
    """ℓ = −Σ_c t_c log p_c, p the softmax of a row's logits; ``cross_entropy`` to rounding.

    Label smoothing and soft labels change t, and with it loss, gradient, Hess and E, but not the
    Hessian diag p − p pᵀ by the logits: G stays. With class weights a row weighs
    w_{y_i}/Σ_j w_{y_j} (soft targets: Σ_c w_c t_{i,c}/n), as PyTorch has it; with both weights and
    smoothing PyTorch's loss of a row is (1 − ε) w_y ℓ_y + (ε/C) Σ_c w_c ℓ_c, and its weight here
    the sum of these factors. Class structure takes the label, of soft ones the most probable.

    Parameters
    ----------
    weight
        (C,) class weights.
    ignore_index
        Rows with this label do not count.
    label_smoothing
        ε in [0, 1].

    >>> z, y = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, -100])
    >>> found = CrossEntropy().targets(y, (2, 2), 0)
    >>> found.scale, found.mass.sum()
    (tensor([1., 0.], dtype=torch.float64), tensor(1., dtype=torch.float64))
    """

    has_classes = True
    least_outputs = 2

    def __init__(
        self,
        weight: Float[Tensor, " C"] | None = None,
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = None if weight is None else _checked_weight(weight)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"expected label_smoothing in 0..1, got {label_smoothing!r}")
        self.ignore_index, self.label_smoothing = int(ignore_index), float(label_smoothing)

    def targets(self, labels: Tensor, shape: tuple[int, ...], first: int) -> Targets:
        width = shape[-1]
        if self.weight is not None and len(self.weight) != width:
            raise ValueError(
                f"expected a class weight for each of the {width} classes, got {len(self.weight)}"
            )
        weight = torch.ones(width, dtype=torch.float64) if self.weight is None else self.weight
        weight = weight.to(labels.device)
        if labels.is_floating_point() and tuple(labels.shape) == tuple(shape):
            return self._soft(_distributions(labels.reshape(-1, width), first), weight)
        classes = class_indices(labels, shape, first, self.ignore_index)
        counted = classes != self.ignore_index
        classes = classes.where(counted, 0)
        mass = weight[classes] * counted
        if not self.label_smoothing:
            return Targets(values=classes, scale=mass, mass=mass)
        scale = (1 - self.label_smoothing) * mass + self.label_smoothing * weight.mean() * counted
        return Targets(values=classes, scale=scale, mass=mass)

    def _soft(self, share: Float[Tensor, "b C"], weight: Float[Tensor, " C"]) -> Targets:
        smooth = self.label_smoothing
        masses = (share * (1 - smooth) + smooth / len(weight)) * weight
        scale = masses.sum(dim=1)
        safe = torch.where(scale > 0, scale, 1.0)
        return Targets(values=masses / safe[:, None], scale=scale, mass=torch.ones_like(scale))

    def prepared(self, targets: Tensor, width: int, dtype: torch.dtype) -> Float[Tensor, "b C"]:
        """t_i for each row."""
        if targets.is_floating_point():
            return targets.to(dtype)
        hot = F.one_hot(targets, width).to(dtype)
        smooth = self.label_smoothing
        if not smooth:
            return hot
        if self.weight is None:
            return hot * (1 - smooth) + smooth / width
        weight = self.weight.to(hot)
        masses = hot * ((1 - smooth) * weight[targets])[:, None] + smooth / width * weight
        return masses / masses.sum(dim=1, keepdim=True)

    def value(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, " b"]:
        logs = torch.log_softmax(outputs, dim=1)
        if targets.is_floating_point():
            return -(targets.to(logs) * logs).sum(dim=1)
        if self.label_smoothing:
            return -(self.prepared(targets, outputs.shape[1], logs.dtype) * logs).sum(dim=1)
        place = targets[:, None]
        direct = -logs.gather(1, place)[:, 0]
        # Near certainty 1 − p is accurate, and the logarithm of p is not.
        others = torch.softmax(outputs, dim=1).scatter(1, place, 0.0).sum(dim=1)
        return torch.where(direct < 0.5, -torch.log1p(-others.clamp_max(0.5)), direct)

    def residual(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, "b C"]:
        """p − t, of ``targets`` that are prepared."""
        return softmax_residual(torch.softmax(outputs, dim=1), targets)

    def state(self, outputs: Float[Tensor, "b C"]) -> Float[Tensor, "b C"]:
        return torch.softmax(outputs, dim=1)

    def hessian(
        self, state: Float[Tensor, "b C"], targets: Tensor, columns: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        return -state[:, :, None] * mean_minus_each(state, columns)

    def root(
        self, state: Float[Tensor, "b C"], targets: Tensor, amounts: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        """L x, L = (p − e_c') √p_c' over c': the extended gradients."""
        return mean_minus_each_transposed(state, state.sqrt()[:, :, None] * amounts)

    def root_transposed(
        self, state: Float[Tensor, "b C"], targets: Tensor, columns: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        return state.sqrt()[:, :, None] * mean_minus_each(state, columns)

    def __repr__(self) -> str:
        weight = None if self.weight is None else self.weight.tolist()
        return (
            f"CrossEntropy(weight={weight}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing:g})"
        )


def _checked_weight(weight: Tensor) -> Float[Tensor, " C"]:
    found = torch.as_tensor(weight).detach().double()
    bad = found.ndim != 1 or not bool(torch.isfinite(found).all()) or bool((found < 0).any())
    if bad or not float(found.sum()) > 0:
        raise ValueError(
            "expected class weights (C,) that are finite, at least 0 and not all 0, got "
            f"{found.tolist()!r:.60}"
        )
    return found


def _distributions(values: Float[Tensor, "b C"], first: int) -> Float[Tensor, "b C"]:
    """Soft labels, once each row is a distribution."""
    values = values.double()
    good = torch.isfinite(values).all(dim=1) & (values >= 0).all(dim=1)
    good &= (values.sum(dim=1) - 1).abs() < 1e-5
    if not bool(good.all()):
        index = int((~good).nonzero()[0])
        raise ValueError(
            "expected soft labels as probabilities, at least 0 and with the sum 1 in each row, got "
            f"{values[index].tolist()!r:.60} in row {index} of the batch from sample {first}; for "
            "labels that do not exclude one another pass loss=torch.nn.BCEWithLogitsLoss()"
        )
    return values
