"""The logits of one batch as a function of the parameters, and how to evaluate it safely."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from deepspec.classifier.calling import arguments
from deepspec.classifier.failures import raised
from deepspec.classifier.generators import undisturbed
from deepspec.classifier.loose_state import as_it_was
from deepspec.classifier.output import Where, logits_of
from deepspec.classifier.parameters import ParameterSpace
from deepspec.classifier.recomputation import without_recomputation
from deepspec.classifier.row_layout import RowLayout, counted
from deepspec.classifier.trees import cut, described, join, own, pick


class LogitFunction:
    """θ ↦ the logits of one batch's rows (R, C), everything else about the model fixed.

    Fused attention kernels have neither forward mode nor second derivatives, so the model runs
    on PyTorch's plain ones here: the same function, differentiable as often as needed. What was
    compiled runs as it was before, for compiled graphs cannot be differentiated twice.

    Parameters
    ----------
    model
        Left as it was after each call, with all that it keeps: see :mod:`.loose_state`.
    space, parameters, constants
        θ by name, and everything else the model has registered.
    inputs
        A tensor, a tuple of the model's arguments, or a mapping of them by name.
    samples
        How many they are.
    logits
        Where they are in the output, see :func:`.output.logits_of`.
    layout, mask
        How the output becomes rows, and which of them count, (b, …); None where each sample is
        one row that counts.
    first, number
        The number of the first sample, and of the batch; for errors.
    training
        Whether modules are in training mode, which only a check wants.
    """

    def __init__(
        self,
        model: nn.Module,
        space: ParameterSpace,
        parameters: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        inputs: Any,
        samples: int,
        *,
        logits: Where = None,
        layout: RowLayout | None = None,
        mask: Bool[Tensor, "b ..."] | None = None,
        first: int = 0,
        number: int = 0,
        training: bool = False,
    ) -> None:
        self.model = model
        self.frozen = {name for name, _ in model.named_parameters()}
        self.space = space
        self.parameters = dict(parameters)
        self.constants = constants
        self.inputs = inputs
        self.samples = samples
        self.logits = logits
        self.layout, self.mask = RowLayout() if layout is None else layout, mask
        self._index = counted(mask)
        self.first, self.number = first, number
        self.training = training

    def __call__(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, "b C"]:
        # Copies: a model may write to its input, or to its buffers.
        inputs = own(self.inputs)
        args, kwargs = arguments(self.model, inputs)
        constants = {k: v if k in self.frozen else v.clone() for k, v in self.constants.items()}
        tensors = {**constants, **parameters}
        try:
            with ExitStack() as stack:
                stack.enter_context(evaluation_mode(self.model, self.training))
                stack.enter_context(undisturbed())
                stack.enter_context(_differentiable_kernels())
                stack.enter_context(without_recomputation())
                stack.enter_context(as_it_was(self.model, tensors))
                output = functional_call(self.model, tensors, args, kwargs)
        # PyTorch's own refusals, which a caller may know a way around, stay as they are.
        except RuntimeError:
            raise
        except Exception as error:
            raise ModelError(
                f"expected {type(self.model).__name__} to run on {self.place}, but it raised "
                f"{raised(error)}"
            ) from error
        return self.layout.rows(logits_of(output, self.logits), self._index)

    @property
    def rows(self) -> int:
        """How many rows count."""
        return self.samples if self.mask is None else int(self.mask.sum())

    @property
    def has_one_row_a_sample(self) -> bool:
        """Whether row i is sample i, of which every logit depends on that sample alone."""
        return self.mask is None

    @property
    def place(self) -> str:
        """Which batch it is, in words."""
        return (
            f"a batch of {described(self.inputs)} (number {self.number}, samples {self.first}.."
            f"{self.first + self.samples - 1})"
        )

    def of(
        self, inputs: Any, samples: int, mask: Bool[Tensor, "b ..."] | None = None
    ) -> LogitFunction:
        """The same function of other samples."""
        other = copy.copy(self)
        other.inputs, other.samples = inputs, samples
        other.mask, other._index = mask, counted(mask)
        return other

    def head(self, samples: int) -> LogitFunction:
        """The same function of the first few samples only."""
        mask = None if self.mask is None else self.mask[:samples]
        return self.of(cut(self.inputs, self.samples, 0, samples), min(samples, self.samples), mask)

    def joined(self, other: LogitFunction) -> LogitFunction:
        """The same function of both batches' samples."""
        inputs = join(self.inputs, self.samples, other.inputs)
        masks = [m for m in (self.mask, other.mask) if m is not None]
        return self.of(
            inputs, self.samples + other.samples, torch.cat(masks) if len(masks) == 2 else None
        )

    def pick(self, samples: Int[Tensor, " k"]) -> LogitFunction:
        """The same function of some samples only, by index."""
        mask = None if self.mask is None else self.mask[samples]
        return self.of(pick(self.inputs, self.samples, samples), len(samples), mask)

    def pick_rows(self, rows: Int[Tensor, " k"]) -> LogitFunction:
        """The same function of some rows only, by ascending index: the model runs their samples."""
        if self.mask is None:
            return self.pick(rows)
        flat = self.mask.flatten().nonzero()[rows, 0]
        each = self.mask[0].numel()
        samples = (flat // each).unique()
        chosen = torch.zeros_like(self.mask)
        chosen.view(-1)[flat] = True
        return self.of(pick(self.inputs, self.samples, samples), len(samples), chosen[samples])

    def leaves(self) -> dict[str, Tensor]:
        """The parameters as fresh leaves of a graph; no memory is copied."""
        return {k: v.detach().requires_grad_() for k, v in self.parameters.items()}


class ModelError(RuntimeError):
    """What a user's model raised, with the batch it was given."""


@contextmanager
def evaluation_mode(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Every module in eval mode inside, or in training mode, and with its own flag outside."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = training
        yield
    finally:
        for module, before in flags:
            module.training = before


@contextmanager
def _differentiable_kernels() -> Iterator[None]:
    """Plain kernels and nothing compiled or cached; the fused ones have no second derivatives."""
    before = torch.backends.mha.get_fastpath_enabled()
    cached = getattr(parametrize, "_cache_enabled", 0)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Inside parametrize.cached() weights are those of the pass before.
        parametrize._cache_enabled = 0
        with ExitStack() as stack:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        parametrize._cache_enabled = cached
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
        with suppress(RuntimeError):  # it is known to fail: asked is only where
            attempt()
    finally:
        for handle in handles:
            handle.remove()
    return last[0]
