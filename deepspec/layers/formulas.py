"""Layers whose parameter Jacobian is a sum over positions of error ⊗ input.

For sample i and logit c, with x_t the layer's input at position t and δ_{c,t} the derivative of
logit c by its output there,

    ∂f_c/∂W = Σ_t δ_{c,t} x_tᵀ,    ∂f_c/∂b = Σ_t δ_{c,t},

so a bias is the weight of one more input that is always 1 (docs/theory.md §1, "Exact spectra"). A
position is a row of a sequence or a place in an image; channels that do not mix (groups of a
convolution, features of a normalisation) are groups g, each with k inputs and o outputs.

Such a layer is linear in its parameters: :meth:`LayerFormula.push` applies it to other ones (the
output's change along directions in θ), and :meth:`LayerFormula.pull` is the transpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight


@dataclass(frozen=True)
class LayerFormula(ABC):
    """Inputs and errors of one kind of layer, arranged as (sample, group, position, …).

    ``weight`` and ``bias`` say which of the two θ contains.
    """

    weight: bool
    bias: bool

    @staticmethod
    def covers(module: nn.Module) -> bool:
        """Whether the formula holds for this module, whose type fits, as it is configured."""
        return True

    @abstractmethod
    def observe(self, module: nn.Module, inputs: Tensor) -> Shaped[Tensor, "b ..."]:
        """What to remember of a call; parameters and buffers are the problem's at this moment."""

    @abstractmethod
    def arrange(self, observed: Tensor) -> Float[Tensor, "b g t k"]:
        """Remembered inputs by group and position."""

    @abstractmethod
    def errors(self, deltas: Float[Tensor, "b C ..."]) -> Float[Tensor, "b C g t o"]:
        """Derivatives of the logits by the output, arranged alike."""

    def features(self, observed: Tensor) -> Float[Tensor, "b g t k"]:
        """Inputs, with a 1 for the bias; of those θ contains."""
        x = self.arrange(observed)
        ones = x.new_ones(*x.shape[:3], 1)
        return torch.cat([part for part, on in ((x, self.weight), (ones, self.bias)) if on], dim=3)

    def compact(self, observed: Tensor) -> Shaped[Tensor, "b g t k"]:
        """What :meth:`products` needs of the inputs."""
        return self.features(observed)

    def products(self, left: Tensor, right: Tensor) -> Float[Tensor, "a b"]:
        """⟨x, x'⟩ for rows of :meth:`compact` of one group."""
        return left @ right.T

    @abstractmethod
    def push(
        self, observed: Tensor, tangents: Mapping[str, Float[Tensor, "m ..."]]
    ) -> Float[Tensor, "b m ..."]:
        """How the output changes along m directions in the layer's parameters."""

    @abstractmethod
    def pull(
        self, observed: Tensor, errors: Float[Tensor, "b m ..."]
    ) -> dict[str, Float[Tensor, "m ..."]]:
        """The transpose of :meth:`push`: each parameter's Σ_t δ_t x_tᵀ for m sets of errors."""

    def _named(self, **parts: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Those of weight and bias that θ contains, computed only then."""
        return {name: part() for name, part in parts.items() if getattr(self, name)}


class LinearFormula(LayerFormula):
    """nn.Linear, on rows or on sequences of any number of dimensions."""

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        return inputs.detach()

    def arrange(self, observed: Tensor) -> Tensor:
        return observed.reshape(len(observed), 1, -1, observed.shape[-1])

    def errors(self, deltas: Tensor) -> Tensor:
        return deltas.reshape(*deltas.shape[:2], 1, -1, deltas.shape[-1])

    def push(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        weight, bias = tangents.get("weight"), tangents.get("bias")
        if weight is None:
            assert bias is not None
            shape = (1, len(bias), *(1,) * (observed.ndim - 2), bias.shape[1])
            return bias.view(shape).expand(len(observed), -1, *observed.shape[1:-1], -1)
        flat = F.linear(observed, weight.flatten(0, 1), None if bias is None else bias.flatten())
        return flat.unflatten(-1, weight.shape[:2]).movedim(-2, 1)

    def pull(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
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
    padding: str | tuple[int, ...]
    groups: int

    @staticmethod
    def covers(module: nn.Module) -> bool:
        return getattr(module, "padding_mode", "") == "zeros"

    @staticmethod
    def of(module: nn.Conv2d, weight: bool, bias: bool) -> ConvolutionFormula:
        sizes = (module.kernel_size, module.stride, module.dilation, module.padding)
        return ConvolutionFormula(weight, bias, *sizes, module.groups)

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        if self.padding == "same":
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            edges = [(span // 2, span - span // 2) for span in spans]
        elif self.padding == "valid":
            edges = [(0, 0), (0, 0)]
        else:
            edges = [(int(width), int(width)) for width in self.padding]
        return F.pad(inputs.detach(), (*edges[1], *edges[0]))

    def arrange(self, observed: Tensor) -> Tensor:
        patches = F.unfold(observed, self.kernel_size, self.dilation, 0, self.stride)
        shape = (len(observed), self.groups, -1, patches.shape[-1])
        return patches.reshape(shape).transpose(2, 3)

    def errors(self, deltas: Tensor) -> Tensor:
        b, C, outputs = deltas.shape[:3]
        by_group = deltas.reshape(b, C, self.groups, outputs // self.groups, -1)
        return by_group.transpose(3, 4)

    def push(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
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

    def pull(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        def weight() -> Tensor:
            by_group = errors.unflatten(2, (self.groups, -1)).transpose(1, 2)
            inputs = observed.shape[1] // self.groups
            shape = (by_group.shape[1:4].numel(), inputs, *self.kernel_size)
            found = conv2d_weight(
                observed, shape, by_group.flatten(1, 3), self.stride, 0, self.dilation, self.groups
            )
            return found.unflatten(0, by_group.shape[1:4]).transpose(0, 1).flatten(1, 2)

        return self._named(weight=weight, bias=lambda: errors.sum(dim=(0, 3, 4)))


class NormalizationFormula(LayerFormula):
    """A factor and a shift for each normalised feature; what is observed is normalised already."""

    @abstractmethod
    def spread(self, parameter: Float[Tensor, "m ..."], ndim: int) -> Float[Tensor, "1 m ..."]:
        """A parameter in the shape of the layer's outputs, (b, m, …) of ``ndim`` dimensions."""

    def push(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        inputs = observed[:, None]
        parts = {name: self.spread(tangent, inputs.ndim) for name, tangent in tangents.items()}
        if "weight" not in parts:
            return parts["bias"].expand(len(inputs), -1, *inputs.shape[2:])
        scaled = inputs * parts["weight"]
        return scaled + parts["bias"] if "bias" in parts else scaled

    def pull(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
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


@dataclass(frozen=True)
class EmbeddingFormula(LayerFormula):
    """nn.Embedding: a linear map of one-hot rows; the padding token has no gradient."""

    size: int
    padding: int | None
    dtype: torch.dtype

    @staticmethod
    def covers(module: nn.Module) -> bool:
        scaled = bool(getattr(module, "scale_grad_by_freq", False))
        return getattr(module, "max_norm", None) is None and not scaled

    def observe(self, module: nn.Module, inputs: Tensor) -> Tensor:
        return inputs.detach()

    def arrange(self, observed: Tensor) -> Tensor:
        rows = F.one_hot(observed.reshape(len(observed), 1, -1), self.size).to(self.dtype)
        if self.padding is not None:
            rows[..., self.padding] = 0
        return rows

    def errors(self, deltas: Tensor) -> Tensor:
        return deltas.reshape(*deltas.shape[:2], 1, -1, deltas.shape[-1])

    def compact(self, observed: Tensor) -> Tensor:
        tokens = observed.reshape(len(observed), 1, -1, 1)
        return tokens if self.padding is None else tokens.where(tokens != self.padding, -1)

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        return ((left == right.T) & (left >= 0)).to(self.dtype)

    def push(self, observed: Tensor, tangents: Mapping[str, Tensor]) -> Tensor:
        table = tangents["weight"].transpose(0, 1)
        if self.padding is not None:
            table = table.index_fill(0, torch.tensor(self.padding, device=table.device), 0)
        return table[observed].movedim(-2, 1)

    def pull(self, observed: Tensor, errors: Tensor) -> dict[str, Tensor]:
        rows = errors.movedim(1, -2).flatten(0, -3)
        table = rows.new_zeros(self.size, *rows.shape[1:])
        table.index_add_(0, observed.flatten(), rows)
        if self.padding is not None:
            table[self.padding] = 0
        return {"weight": table.transpose(0, 1)}


def layer_formula(
    module: nn.Module, weight: bool, bias: bool, dtype: torch.dtype
) -> LayerFormula | None:
    """The formula for a module, ``None`` where there is none.

    Exact types only: a subclass may compute something else.
    """
    kind: LayerFormula | None = None
    if type(module) is nn.Linear:
        kind = LinearFormula(weight, bias)
    elif type(module) is nn.Conv2d:
        kind = ConvolutionFormula.of(module, weight, bias)
    elif type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
        kind = BatchNormFormula(weight, bias)
    elif type(module) is nn.LayerNorm:
        kind = LayerNormFormula(weight, bias, tuple(module.normalized_shape), module.eps)
    elif type(module) is nn.Embedding:
        kind = EmbeddingFormula(weight, bias, module.num_embeddings, module.padding_idx, dtype)
    return kind if kind is not None and kind.covers(module) else None
