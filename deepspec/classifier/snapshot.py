"""A copy of a net's θ and of all else it has registered, so that the caller's stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.output import Where
from deepspec.classifier.parameters import ParameterSpace
from deepspec.classifier.row_layout import RowLayout
from deepspec.classifier.trees import move


class Snapshot:
    """What a net is at one moment: θ in one flat tensor, and constants beside it.

    Parameters
    ----------
    model
        The net; nothing of it is changed.
    space
        Which of its parameters are θ.
    dtype, device
        Of the copies; constants that are whole numbers keep their type.
    logits
        Where they are in the output, see :func:`.output.logits_of`.
    """

    def __init__(
        self,
        model: nn.Module,
        space: ParameterSpace,
        dtype: torch.dtype,
        device: torch.device,
        logits: Where,
    ) -> None:
        self._model, self._where = model, logits
        self._dtype, self._device = dtype, device
        everything = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._take(space, {n: everything[n].detach().to(device, dtype) for n in space.names})
        self.constants = {
            name: self._copied(tensor)
            for name, tensor in everything.items()
            if name not in self._named
        }

    def _take(self, space: ParameterSpace, tensors: dict[str, Tensor]) -> None:
        """One flat tensor holds θ; the named parameters are views of it."""
        self.space = space
        self.parameters = space.flatten(tensors)
        self._named = space.unflatten(self.parameters)

    def _copied(self, tensor: Tensor) -> Tensor:
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to(self._device, dtype, copy=True)

    def restricted(self, names: Sequence[str]) -> Snapshot:
        """The same with fewer tensors in θ, the others being constants; these are not copied."""
        other = copy.copy(self)
        other._take(self.space.restricted(names), self._named)
        rest = {name: t for name, t in self._named.items() if name not in other._named}
        other.constants = {**self.constants, **rest}
        return other

    def function(
        self, inputs: Any, samples: int, layout: RowLayout, *, first: int, number: int
    ) -> LogitFunction:
        """The logits of one batch as a function of θ."""
        return LogitFunction(
            self._model,
            self.space,
            self._named,
            self.constants,
            move(inputs, self._device, self._dtype),
            samples,
            logits=self._where,
            layout=layout,
            first=first,
            number=number,
        )
