"""Sigmoids: one logit, which is two classes, or several that do not exclude one another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from deepspec.losses.base import Loss, Targets, numbers
from deepspec.losses.cross_entropy import CrossEntropy


def shares(labels: Tensor, shape: tuple[int, ...], first: int, loss: str) -> Float[Tensor, "b C"]:
    """Targets in 0..1, one for each logit.

    Raises
    ------
    ValueError
        If one is not.
    """
    values = numbers(labels, shape, first, loss)
    if bool(((values < 0) | (values > 1)).any()):
        raise ValueError(
            f"expected targets of {loss} in 0..1, got {float(values.min()):.3g}.."
            f"{float(values.max()):.3g}; the loss is not convex in the logits beyond"
        )
    return values


class BinaryCrossEntropy(CrossEntropy):
    """One logit z, ``binary_cross_entropy_with_logits``: two classes of logits (0, z).

    The softmax of (0, z) is the sigmoid of z, so loss, gradient, G, Hess and class structure are
    those of a net with these two columns; that is how it is computed. ``pos_weight`` multiplies
    the loss of class 1 and, as in PyTorch, not the denominator.

    >>> BinaryCrossEntropy().columns(torch.tensor([[2.0]]))
    tensor([[0., 2.]])
    """

    least_outputs = 1

    def __init__(self, pos_weight: float = 1.0) -> None:
        super().__init__()
        self.pos_weight = float(pos_weight)
        if not 0 < self.pos_weight < float("inf"):
            raise ValueError(f"expected pos_weight above 0, got {pos_weight!r}")

    def columns(self, outputs: Float[Tensor, "... 1"]) -> Float[Tensor, "... 2"]:
        return torch.cat([torch.zeros_like(outputs), outputs], dim=-1)

    def targets(self, labels: Tensor, shape: tuple[int, ...], first: int) -> Targets:
        share = shares(labels, (*shape[:-1], 1), first, "BCEWithLogitsLoss")
        masses = torch.cat([1 - share, self.pos_weight * share], dim=1)
        scale = masses.sum(dim=1)
        whole = bool(((share == 0) | (share == 1)).all())
        values = share[:, 0].long() if whole else masses / scale[:, None]
        return Targets(values=values, scale=scale, mass=torch.ones_like(scale))

    def __repr__(self) -> str:
        return f"BinaryCrossEntropy(pos_weight={self.pos_weight:g})"


class MultiLabelCrossEntropy(Loss):
    """C sigmoids that do not exclude one another: the mean of ``binary_cross_entropy_with_logits``.

    G and Hess are those of PyTorch's mean over all n·C numbers. A row may have several classes or
    none, so there is no class structure.
    """

    def __init__(self, pos_weight: Float[Tensor, " C"] | None = None) -> None:
        self.pos_weight = None if pos_weight is None else pos_weight.detach().double().cpu()

    def targets(self, labels: Tensor, shape: tuple[int, ...], first: int) -> Targets:
        if self.pos_weight is not None and self.pos_weight.numel() not in (1, shape[-1]):
            raise ValueError(
                f"expected pos_weight for {shape[-1]} logits, got {self.pos_weight.numel()}"
            )
        values = shares(labels, shape, first, "BCEWithLogitsLoss")
        ones = values.new_ones(len(values))
        return Targets(values=values, scale=ones, mass=ones)

    def _positive(self, like: Tensor) -> Tensor | float:
        return 1.0 if self.pos_weight is None else self.pos_weight.to(like)

    def value(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, " b"]:
        weight = None if self.pos_weight is None else self.pos_weight.to(outputs)
        each = F.binary_cross_entropy_with_logits(
            outputs, targets, pos_weight=weight, reduction="none"
        )
        return each.mean(dim=1)

    def residual(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, "b C"]:
        # (1 − t) p − t pos (1 − p), with 1 − p as accurate as p.
        up, down = torch.sigmoid(outputs), torch.sigmoid(-outputs)
        each = (1 - targets) * up - self._positive(outputs) * targets * down
        return each / outputs.shape[1]

    def _curvature(self, state: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, "b C"]:
        slope = torch.sigmoid(state) * torch.sigmoid(-state)
        return slope * (1 - targets + self._positive(state) * targets) / state.shape[1]

    def hessian(
        self, state: Float[Tensor, "b C"], targets: Tensor, columns: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        return self._curvature(state, targets)[:, :, None] * columns

    def root(
        self, state: Float[Tensor, "b C"], targets: Tensor, amounts: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        return self._curvature(state, targets).sqrt()[:, :, None] * amounts

    def __repr__(self) -> str:
        weight = None if self.pos_weight is None else self.pos_weight.tolist()
        return f"MultiLabelCrossEntropy(pos_weight={weight})"
