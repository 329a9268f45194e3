"""A few rows of a classifier in float64, and directions in which to move its parameters.

Of a large net only some columns of each large tensor are moved, and the rest goes through float64
on its way into the model: about half the memory and a third of the time that all of θ would take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.classifier.trees import move

ROWS = 3
# Above so many parameters, so many entries of each tensor are moved, at least a column.
LARGE, ENTRIES = 2**22, 2**16


class InDouble(TorchFunctionMode):
    """Inside, what a model casts to a lower precision stays in float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        def raised(value: Any) -> Any:
            low = (torch.float32, torch.float16, torch.bfloat16)
            return torch.float64 if isinstance(value, torch.dtype) and value in low else value

        if getattr(func, "__name__", "") == "float":
            return args[0].double()
        given = {name: raised(value) for name, value in (kwargs or {}).items()}
        return func(*(raised(value) for value in args), **given)


@dataclass(frozen=True)
class Columns:
    """Some neighbouring columns of a tensor, which move while the rest of it stays."""

    whole: Tensor
    dim: int
    start: int
    count: int

    @staticmethod
    def of(whole: Tensor) -> Columns | None:
        """Columns in the middle, where inputs are seldom all zero; ``None`` for a small tensor."""
        dim = min(1, whole.ndim - 1)
        if whole.numel() <= ENTRIES:
            return None
        each = whole.numel() // whole.shape[dim]
        count = max(1, min(whole.shape[dim], ENTRIES // each))
        return Columns(whole, dim, (whole.shape[dim] - count) // 2, count)

    def taken(self) -> Tensor:
        """The columns, in float64."""
        return self.whole.detach().narrow(self.dim, self.start, self.count).double()

    def put(self, columns: Tensor) -> Tensor:
        """The whole tensor in float64 with other columns."""
        sizes = [self.start, self.count, self.whole.shape[self.dim] - self.start - self.count]
        before, _, after = self.whole.detach().split(sizes, self.dim)
        return torch.cat([before.double(), columns, after.double()], self.dim)


class DoubleFunction(LogitFunction):
    """A logit function of a few rows in float64, at θ or a little beside it."""

    partly: Mapping[str, Columns]

    @staticmethod
    def from_function(function: LogitFunction, shift: float = 0.0) -> DoubleFunction:
        n = function.samples
        device = next(iter(function.parameters.values())).device
        few = function.pick(torch.tensor(sorted({0, n // 2, n - 1})[:ROWS], device=device))
        large = few.space.size > LARGE
        columns = {k: Columns.of(v) if large else None for k, v in few.parameters.items()}
        partly = {k: c for k, c in columns.items() if c is not None}
        moving = {
            k: partly[k].taken() if k in partly else v.detach().double()
            for k, v in few.parameters.items()
        }
        space = ParameterSpace(few.space.names, tuple(moving[k].shape for k in few.space.names))
        constants = {
            k: v.double() if v.is_floating_point() else v for k, v in few.constants.items()
        }
        inputs = move(few.inputs, device, torch.float64)
        # Views of one flat θ, as a tangent has to be aligned with.
        named = space.unflatten(space.flatten(moving))
        double = DoubleFunction(
            few.model,
            space,
            named,
            constants,
            inputs,
            few.samples,
            logits=few.logits,
            layout=few.layout,
            mask=few.mask,
        )
        double.partly = partly
        if shift:
            beside = space.flatten(named).add_(direction(double, 7), alpha=shift)
            double.parameters = space.unflatten(beside)
        return double

    def __call__(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, "b C"]:
        return self.of_whole(self.whole(parameters))

    def whole(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the model takes, from those that move."""
        return {k: self.partly[k].put(v) if k in self.partly else v for k, v in parameters.items()}

    def of_whole(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, "b C"]:
        """The logits, from whole tensors."""
        with InDouble():
            return super().__call__(tensors)


def direction(function: LogitFunction, seed: int) -> Float[Tensor, " p"]:
    """A random direction in which every tensor moves by a like share of its size, float64."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for name, value in function.parameters.items():
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        size = float(value.detach().double().square().mean().sqrt())
        parts[name] = noise.to(value.device) * (size or 1.0)
    for name, row in padding_rows(function):
        parts[name][row] = 0.0
    return function.space.flatten(parts)


def padding_rows(function: LogitFunction) -> set[tuple[str, int]]:
    """Rows of θ that stand for a padding token: constants by convention, whatever depends on them.

    By the name of the tensor; a module's and a bare ``F.embedding``'s.
    """
    whole: Mapping[str, Tensor] = function.parameters
    run: Callable[[Mapping[str, Tensor]], Tensor] = function
    if isinstance(function, DoubleFunction):
        whole, run = function.whole(whole), function.of_whole
    lookups = _Lookups({id(value): name for name, value in whole.items()})
    with torch.no_grad(), lookups:
        run(whole)
    return lookups.found


class _Lookups(TorchFunctionMode):
    """Notes the padding rows of tables that are looked up."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names, self.found = names, set[tuple[str, int]]()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in (nn.functional.embedding, nn.functional.embedding_bag):
            table = given.get("weight", args[1] if len(args) > 1 else None)
            row = given.get("padding_idx", args[2] if len(args) > 2 else None)
            if func is nn.functional.embedding_bag:
                row = given.get("padding_idx")
            if row is not None and id(table) in self.names:
                self.found.add((self.names[id(table)], int(row)))
        return func(*args, **given)


def moved(function: LogitFunction, vector: Tensor, step: float) -> dict[str, Tensor]:
    """θ + step · v, with a graph beginning there."""
    space = function.space
    tangents = space.unflatten(vector)
    theta = space.flatten(
        {k: v.detach() + step * tangents[k] for k, v in function.parameters.items()}
    )
    return {k: v.detach().requires_grad_() for k, v in space.unflatten(theta).items()}
