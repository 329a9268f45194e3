"""Layers whose parameter Jacobian is a sum over positions of error ⊗ input.

For sample i and logit c, with x_t the layer's input at position t and δ_{c,t} the derivative of
logit c by its output there,

    ∂f_c/∂W = Σ_t δ_{c,t} x_tᵀ,    ∂f_c/∂b = Σ_t δ_{c,t},

so a bias is the weight of one more input that is always 1 (docs/theory.md §1, "Exact spectra"). A
position is a row of a sequence or a place in an image; channels that do not mix (groups of a
convolution, features of a normalisation) are groups g, each with k inputs and o outputs.

Such a layer is linear in its parameters: :meth:`LayerFormula.jvp` applies it to other ones (the
output's change along directions in θ), and :meth:`LayerFormula.vjp` is the transpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn


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

    def padding(self, observed: Tensor) -> Bool[Tensor, "b t"] | None:
        """Positions that the layer itself takes for padding; ``None`` where it knows none."""
        return None

    def matrix(self, weight: Tensor) -> Float[Tensor, "o i"] | None:
        """The weight as a matrix from inputs to outputs; ``None`` where there is no such one."""
        return None

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
    def jvp(
        self, observed: Tensor, tangents: Mapping[str, Float[Tensor, "m ..."]]
    ) -> Float[Tensor, "b m ..."]:
        """How the output changes along m directions in the layer's parameters."""

    @abstractmethod
    def vjp(
        self, observed: Tensor, errors: Float[Tensor, "b m ..."]
    ) -> dict[str, Float[Tensor, "m ..."]]:
        """The transpose of :meth:`jvp`: each parameter's Σ_t δ_t x_tᵀ for m sets of errors."""

    def _named(self, **parts: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Those of weight and bias that θ contains, computed only then."""
        return {name: part() for name, part in parts.items() if getattr(self, name)}
