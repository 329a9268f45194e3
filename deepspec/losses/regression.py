"""The squared error, as PyTorch's ``mse_loss`` scales it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from deepspec.losses.base import Loss


class SquaredError(Loss):
    """ℓ = ‖f − t‖²/C, whose mean over rows is ``mse_loss``: G = (2/C) JᵀJ/n.

    PyTorch divides by all n·C numbers and has no factor 1/2, hence 2/C. There are no classes, and
    so no class structure.

    >>> import torch
    >>> f, t = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    >>> SquaredError().value(f, t), torch.nn.functional.mse_loss(f, t)
    (tensor([2.5000]), tensor(2.5000))
    """

    def value(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, " b"]:
        return (outputs - targets).square().mean(dim=1)

    def residual(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, "b C"]:
        return (outputs - targets) * (2 / outputs.shape[1])

    def hessian(
        self, state: Float[Tensor, "b C"], targets: Tensor, columns: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        return columns * (2 / state.shape[1])

    def root(
        self, state: Float[Tensor, "b C"], targets: Tensor, amounts: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        return amounts * (2 / state.shape[1]) ** 0.5
