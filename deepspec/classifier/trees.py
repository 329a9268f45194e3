"""A batch's inputs: tensors by sample, alone or in the tuples and mappings that models take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


def mapped(change: Callable[[Tensor], Any], inputs: Any) -> Any:
    """The inputs with every tensor changed, in the containers they came in.

    >>> mapped(lambda x: x + 1, {"x": torch.tensor([1]), "scale": 2.0})
    {'x': tensor([2]), 'scale': 2.0}
    """
    if isinstance(inputs, Mapping):
        return {name: mapped(change, value) for name, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return type(inputs)(mapped(change, value) for value in inputs)
    return change(inputs) if isinstance(inputs, Tensor) else inputs


def tensors(inputs: Any) -> list[Tensor]:
    """Every tensor of the inputs, in order."""
    found: list[Tensor] = []
    mapped(found.append, inputs)
    return found


def by_sample(tensor: Tensor, samples: int) -> bool:
    """Whether a tensor has one row for each sample; a temperature or class weights have not."""
    return tensor.ndim > 0 and tensor.shape[0] == samples


def cut(inputs: Any, samples: int, start: int, stop: int) -> Any:
    """Samples start..stop−1 of a batch's inputs."""
    return mapped(lambda t: t[start:stop] if by_sample(t, samples) else t, inputs)


def pick(inputs: Any, samples: int, rows: Int[Tensor, " k"]) -> Any:
    """Some samples of a batch's inputs, by index."""
    return mapped(lambda t: t[rows] if by_sample(t, samples) else t, inputs)


def join(left: Any, samples: int, right: Any) -> Any:
    """The samples of two batches' inputs, one after the other."""
    others = iter(tensors(right))

    def both(tensor: Tensor) -> Tensor:
        other = next(others)
        return torch.cat([tensor, other]) if by_sample(tensor, samples) else tensor

    return mapped(both, left)


def joinable(left: Any, right: Any) -> bool:
    """Whether two batches' inputs differ in nothing but their samples' number."""
    pairs = zip(tensors(left), tensors(right), strict=False)
    return all(a.shape[1:] == b.shape[1:] for a, b in pairs if a.ndim and b.ndim)


def own(inputs: Any) -> Any:
    """Copies, which a model may write to."""
    return mapped(Tensor.clone, inputs)


def move(inputs: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Inputs on a device, floating-point ones in a dtype; integers (tokens) as they are."""
    return mapped(lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype), inputs)


def described(inputs: Any) -> str:
    """Shapes and types, for errors.

    >>> described({"x": torch.zeros(2, 3), "scale": 2.0})
    '{x: (2, 3) float32, scale: float}'
    """
    if isinstance(inputs, Mapping):
        return "{" + ", ".join(f"{k}: {described(v)}" for k, v in inputs.items()) + "}"
    if isinstance(inputs, tuple | list):
        return "(" + ", ".join(map(described, inputs)) + ")"
    if isinstance(inputs, Tensor):
        return f"{tuple(inputs.shape)} {str(inputs.dtype).removeprefix('torch.')}"
    return type(inputs).__name__
