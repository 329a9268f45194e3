"""Linear maps of inputs: nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from deepspec.layers.formula import LayerFormula


class LinearFormula(LayerFormula):
    """nn.Linear, on rows or on sequences of any number of dimensions."""

    def matrix(self, weight: Tensor) -> Tensor:
        return weight

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        return inputs.detach()

    def arrange(self, observed: Tensor) -> Tensor:
        return observed.reshape(len(observed), 1, -1, observed.shape[-1])

    def errors(self, deltas: Tensor) -> Tensor:
        return deltas.reshape(*deltas.shape[:2], 1, -1, deltas.shape[-1])

    def jvp(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        weight, bias = tangents.get("weight"), tangents.get("bias")
        if weight is None:
            assert bias is not None
            shape = (1, len(bias), *(1,) * (observed.ndim - 2), bias.shape[1])
            return bias.view(shape).expand(len(observed), -1, *observed.shape[1:-1], -1)
        flat = F.linear(observed, weight.flatten(0, 1), None if bias is None else bias.flatten())
        return flat.unflatten(-1, weight.shape[:2]).movedim(-2, 1)

    def vjp(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        rows = errors.movedim(1, -2).flatten(0, -3)
        return self._named(
            weight=lambda: (
                rows.flatten(1).T @ observed.reshape(len(rows), observed.shape[-1])
            ).unflatten(0, rows.shape[1:]),
            bias=lambda: rows.sum(dim=0),
        )


@dataclass(frozen=True)
class ConvolutionFormula(LayerFormula):
    """nn.Conv2d with zero padding, as a linear map of patches; any stride, dilation, groups."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    edges: str | tuple[int, ...]
    groups: int

    @staticmethod
    def covers(module: nn.Module) -> bool:
        return getattr(module, "padding_mode", "") == "zeros"

    @staticmethod
    def of(module: nn.Module, weight: bool, bias: bool) -> ConvolutionFormula:
        assert isinstance(module, nn.Conv2d)
        sizes = (module.kernel_size, module.stride, module.dilation, module.padding)
        return ConvolutionFormula(weight, bias, *sizes, module.groups)

    def matrix(self, weight: Tensor) -> Tensor | None:
        return weight.flatten(1) if self.groups == 1 else None

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        if self.edges == "same":
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            edges = [(span // 2, span - span // 2) for span in spans]
        elif self.edges == "valid":
            edges = [(0, 0), (0, 0)]
        else:
            edges = [(int(width), int(width)) for width in self.edges]
        return F.pad(inputs.detach(), (*edges[1], *edges[0]))

    def arrange(self, observed: Tensor) -> Tensor:
        patches = F.unfold(observed, self.kernel_size, self.dilation, 0, self.stride)
        shape = (len(observed), self.groups, -1, patches.shape[-1])
        return patches.reshape(shape).transpose(2, 3)

    def errors(self, deltas: Tensor) -> Tensor:
        b, C, outputs = deltas.shape[:3]
        by_group = deltas.reshape(b, C, self.groups, outputs // self.groups, -1)
        return by_group.transpose(3, 4)

    def jvp(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        # One convolution for all directions: each group of channels gets the outputs of each.
        weight, bias = tangents.get("weight"), tangents.get("bias")
        if weight is None:
            assert bias is not None
            inputs = observed.shape[1] // self.groups
            weight = bias.new_zeros(*bias.shape, inputs, *self.kernel_size)
        stacked = weight.unflatten(1, (self.groups, -1)).transpose(0, 1)
        output = F.conv2d(
            observed, stacked.flatten(0, 2), None, self.stride, 0, self.dilation, self.groups
        )
        by_group = output.unflatten(1, stacked.shape[:3])
        result = by_group.transpose(1, 2).flatten(2, 3)
        return result if bias is None else result + bias[None, :, :, None, None]

    def vjp(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        def weight() -> Tensor:
            by_group = errors.unflatten(2, (self.groups, -1)).transpose(1, 2)
            inputs = observed.shape[1] // self.groups
            shape = (by_group.shape[1:4].numel(), inputs, *self.kernel_size)
            found = conv2d_weight(
                observed, shape, by_group.flatten(1, 3), self.stride, 0, self.dilation, self.groups
            )
            return found.unflatten(0, by_group.shape[1:4]).transpose(0, 1).flatten(1, 2)

        return self._named(weight=weight, bias=lambda: errors.sum(dim=(0, 3, 4)))


@dataclass(frozen=True)
class SeriesConvolutionFormula(ConvolutionFormula):
    """nn.Conv1d, as a convolution of images that are one pixel high."""

    @staticmethod
    def of(module: nn.Module, weight: bool, bias: bool) -> SeriesConvolutionFormula:
        assert isinstance(module, nn.Conv1d)
        edges = module.padding
        return SeriesConvolutionFormula(
            weight,
            bias,
            (1, *module.kernel_size),
            (1, *module.stride),
            (1, *module.dilation),
            edges if isinstance(edges, str) else (0, *edges),
            module.groups,
        )

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        return super().observe(module, inputs[:, :, None])

    def jvp(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        images = {k: v if k == "bias" else v[:, :, :, None] for k, v in tangents.items()}
        return super().jvp(observed, images).squeeze(3)

    def vjp(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        found = super().vjp(observed, errors[:, :, :, None])
        return {k: v if k == "bias" else v.squeeze(3) for k, v in found.items()}


@dataclass(frozen=True)
class TransposedLinearFormula(LinearFormula):
    """A linear map that keeps its weight transposed, (in, out): Conv1D of Hugging Face."""

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.T

    def jvp(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        turned = {k: v if k == "bias" else v.transpose(1, 2) for k, v in tangents.items()}
        return super().jvp(observed, turned)

    def vjp(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        found = super().vjp(observed, errors)
        return {k: v if k == "bias" else v.transpose(1, 2) for k, v in found.items()}


@dataclass(frozen=True)
class EmbeddingFormula(LayerFormula):
    """nn.Embedding: a linear map of one-hot rows; the padding token has no gradient."""

    size: int
    padding_token: int | None
    dtype: torch.dtype

    @staticmethod
    def covers(module: nn.Module) -> bool:
        scaled = bool(getattr(module, "scale_grad_by_freq", False))
        return getattr(module, "max_norm", None) is None and not scaled

    def matrix(self, weight: Tensor) -> Tensor:
        return weight.T

    def padding(self, observed: Tensor) -> Tensor | None:
        tokens = observed.reshape(len(observed), -1)
        return None if self.padding_token is None else tokens == self.padding_token

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        return inputs.detach()

    def arrange(self, observed: Tensor) -> Tensor:
        rows = F.one_hot(observed.reshape(len(observed), 1, -1), self.size).to(self.dtype)
        if self.padding_token is not None:
            rows[..., self.padding_token] = 0
        return rows

    def errors(self, deltas: Tensor) -> Tensor:
        return deltas.reshape(*deltas.shape[:2], 1, -1, deltas.shape[-1])

    def compact(self, observed: Tensor) -> Tensor:
        tokens = observed.reshape(len(observed), 1, -1, 1)
        return (
            tokens if self.padding_token is None else tokens.where(tokens != self.padding_token, -1)
        )

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        return ((left == right.T) & (left >= 0)).to(self.dtype)

    def jvp(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        table = tangents["weight"].transpose(0, 1)
        if self.padding_token is not None:
            table = table.index_fill(0, torch.tensor(self.padding_token, device=table.device), 0)
        return table[observed].movedim(-2, 1)

    def vjp(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        rows = errors.movedim(1, -2).flatten(0, -3)
        table = rows.new_zeros(self.size, *rows.shape[1:])
        table.index_add_(0, observed.flatten(), rows)
        if self.padding_token is not None:
            table[self.padding_token] = 0
        return {"weight": table.transpose(0, 1)}
