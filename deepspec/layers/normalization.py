"""A factor and a shift for each normalised feature: nn.BatchNorm in eval mode, nn.LayerNorm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deepspec.layers.formula import LayerFormula


class NormalizationFormula(LayerFormula):
    """A factor and a shift for each normalised feature; what is observed is normalised already."""

    @abstractmethod
    def spread(self, parameter: Float[Tensor, "m ..."], ndim: int) -> Float[Tensor, "1 m ..."]:
        """A parameter in the shape of the layer's outputs, (b, m, …) of ``ndim`` dimensions."""

    def jvp(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        inputs = observed[:, None]
        parts = {name: self.spread(tangent, inputs.ndim) for name, tangent in tangents.items()}
        if "weight" not in parts:
            return parts["bias"].expand(len(inputs), -1, *inputs.shape[2:])
        if "bias" not in parts:
            return inputs * parts["weight"]
        return torch.addcmul(parts["bias"], inputs, parts["weight"])

    def vjp(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        return self._named(
            weight=lambda: self.gathered(errors * observed[:, None]),
            bias=lambda: self.gathered(errors),
        )

    @abstractmethod
    def gathered(self, outputs: Float[Tensor, "b m ..."]) -> Float[Tensor, "m ..."]:
        """The transpose of :meth:`spread`."""


class BatchNormFormula(NormalizationFormula):
    """nn.BatchNorm1d and 2d with running statistics: each channel a group with one output."""

    @staticmethod
    def covers(module: nn.Module) -> bool:
        return getattr(module, "running_mean", None) is not None

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        mean, variance = module.get_buffer("running_mean"), module.get_buffer("running_var")
        eps = float(getattr(module, "eps", 0.0))
        return F.batch_norm(inputs.detach(), mean, variance, eps=eps)

    def arrange(self, observed: Tensor) -> Tensor:
        return observed.reshape(*observed.shape[:2], -1, 1)

    def errors(self, deltas: Tensor) -> Tensor:
        return deltas.reshape(*deltas.shape[:3], -1, 1)

    def spread(self, parameter: Tensor, ndim: int) -> Tensor:
        return parameter.view(1, *parameter.shape, *(1,) * (ndim - 3))

    def gathered(self, outputs: Tensor) -> Tensor:
        return outputs.sum(dim=(0, *range(3, outputs.ndim)))


@dataclass(frozen=True)
class LayerNormFormula(NormalizationFormula):
    """nn.LayerNorm: each normalised feature a group with one output."""

    shape: tuple[int, ...]
    eps: float

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        return F.layer_norm(inputs.detach(), self.shape, eps=self.eps)

    def arrange(self, observed: Tensor) -> Tensor:
        size = torch.Size(self.shape).numel()
        return observed.reshape(len(observed), -1, size).transpose(1, 2)[..., None]

    def errors(self, deltas: Tensor) -> Tensor:
        size = torch.Size(self.shape).numel()
        return deltas.reshape(*deltas.shape[:2], -1, size).transpose(2, 3)[..., None]

    def spread(self, parameter: Tensor, ndim: int) -> Tensor:
        between = ndim - 2 - len(self.shape)
        return parameter.view(1, len(parameter), *(1,) * between, *self.shape)

    def gathered(self, outputs: Tensor) -> Tensor:
        return outputs.sum(dim=(0, *range(2, outputs.ndim - len(self.shape))))
