"""The logits of one batch as a function of the parameters, and how to evaluate it safely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from deepspec.classifier.batches import cut, join, pick
from deepspec.classifier.parameters import ParameterSpace
from deepspec.classifier.recomputation import without_recomputation


class LogitFunction:
    """θ ↦ the logits of one batch, everything else about the model fixed.

    Fused attention kernels have neither forward mode nor second derivatives, so the model runs
    on PyTorch's plain ones here: the same function, differentiable as often as needed.
    """

    def __init__(
        self,
        model: nn.Module,
        space: ParameterSpace,
        parameters: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        inputs: Any,
        samples: int,
    ) -> None:
        self.model = model
        self.frozen = {name for name, _ in model.named_parameters()}
        self.space = space
        self.parameters = dict(parameters)
        self.constants = constants
        self.inputs = inputs
        self.samples = samples

    def __call__(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, "b C"]:
        # Copies: a model may write to its input, or to its buffers.
        by_name = isinstance(self.inputs, Mapping)
        args = () if by_name else (self.inputs.clone(),)
        kwargs = {k: _own(v) for k, v in self.inputs.items()} if by_name else {}
        constants = {k: v if k in self.frozen else v.clone() for k, v in self.constants.items()}
        with evaluation_mode(self.model), _differentiable_kernels(), without_recomputation():
            output = functional_call(self.model, {**constants, **parameters}, args, kwargs)
        if isinstance(output, Mapping):
            return output.get("logits", output)
        return getattr(output, "logits", output)

    def head(self, samples: int) -> LogitFunction:
        """The same function of the first few samples only."""
        inputs = cut(self.inputs, 0, samples)
        return LogitFunction(
            self.model, self.space, self.parameters, self.constants, inputs, samples
        )

    def joined(self, other: LogitFunction) -> LogitFunction:
        """The same function of both batches' samples."""
        inputs, samples = join(self.inputs, other.inputs), self.samples + other.samples
        return LogitFunction(
            self.model, self.space, self.parameters, self.constants, inputs, samples
        )

    def pick(self, rows: Int[Tensor, " k"]) -> LogitFunction:
        """The same function of some samples only, by index."""
        inputs = pick(self.inputs, rows)
        return LogitFunction(
            self.model, self.space, self.parameters, self.constants, inputs, len(rows)
        )

    def leaves(self) -> dict[str, Tensor]:
        """The parameters as fresh leaves of a graph; no memory is copied."""
        return {k: v.detach().requires_grad_() for k, v in self.parameters.items()}


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside, and with its own training flag again outside."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _differentiable_kernels() -> Iterator[None]:
    """Plain attention and transformer kernels; the fused ones have no second derivatives."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def innermost_module(model: nn.Module, attempt: Callable[[], object]) -> str:
    """The name of the module whose forward pass was the last to begin in ``attempt``."""
    names = {module: name or type(model).__name__ for name, module in model.named_modules()}
    last = [type(model).__name__]

    def note(module: nn.Module, _: object) -> None:
        if module in names:
            last[0] = f"{names[module]} ({type(module).__name__})"

    handles = [module.register_forward_pre_hook(note) for module in names]
    try:
        attempt()
    except (RuntimeError, NotImplementedError):
        pass
    finally:
        for handle in handles:
            handle.remove()
    return last[0]
