"""Which parameters θ stands for, and θ as one flat vector."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class ParameterSpace:
    """The named tensors that make up θ ∈ R^p, in order.

    >>> space = ParameterSpace(("weight", "bias"), ((2, 3), (2,)))
    >>> space.size, space.unflatten(torch.arange(8.0))["bias"]
    (8, tensor([6., 7.]))
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size | tuple[int, ...], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of entries of each tensor."""
        return tuple(int(torch.Size(shape).numel()) for shape in self.shapes)

    @property
    def size(self) -> int:
        """p, the number of parameters."""
        return sum(self.counts)

    def restricted(self, names: Sequence[str]) -> ParameterSpace:
        """Some of the tensors, in the order they have here."""
        kept = [pair for pair in zip(self.names, self.shapes, strict=True) if pair[0] in names]
        return ParameterSpace(tuple(n for n, _ in kept), tuple(shape for _, shape in kept))

    def flatten(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, " p"]:
        """One vector of all tensors, a copy."""
        return torch.cat([tensors[name].reshape(-1) for name in self.names])

    def unflatten(self, vector: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """Views of a vector, in the tensors' shapes."""
        parts = vector.split(self.counts)
        return {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def tangents(self, vector: Float[Tensor, " p"]) -> dict[str, Tensor]:
        """A vector as directions for forward mode at parameters that are views of one flat θ.

        Forward mode wants a tangent laid out as its primal, down to the size of the storage they
        are views of. For a row of a block, whose storage is larger, PyTorch would make a buffer of
        p zeros for each tensor; one copy of the row is aligned with θ in all of them.
        """
        own = vector.is_contiguous() and vector.storage_offset() == 0
        if not own or vector.untyped_storage().nbytes() != vector.numel() * vector.element_size():
            vector = vector.clone(memory_format=torch.contiguous_format)
        return self.unflatten(vector)

    def unflatten_columns(self, columns: Float[Tensor, "p k"]) -> dict[str, Tensor]:
        """Columns as tensors (k, *shape), one for each name, each column contiguous.

        So a column under vmap has the strides of its parameter, as :meth:`tangents` explains.
        """
        rows = columns.T.contiguous()
        return {
            name: part.unflatten(1, shape) if len(shape) else part[:, 0]
            for name, part, shape in zip(
                self.names, rows.split(self.counts, dim=1), self.shapes, strict=True
            )
        }

    def accumulate(
        self, into: Float[Tensor, " p"], tensors: Sequence[Tensor | None], factor: float = 1.0
    ) -> None:
        """Add tensors, in the order of the names, to a flat vector; ``None`` counts as zero."""
        for part, tensor in zip(into.split(self.counts), tensors, strict=True):
            if tensor is not None:
                part.add_(tensor.reshape(-1), alpha=factor)


def parameter_space(
    model: nn.Module, select: Callable[[str, nn.Parameter], bool] | None = None
) -> ParameterSpace:
    """The trainable parameters of a model, or those that ``select(name, parameter)`` accepts.

    A tensor that several modules share counts once. Frozen parameters
    (``requires_grad=False``) are constants of the model, not part of θ.

    Raises
    ------
    ValueError
        If nothing is left to differentiate with respect to, a parameter is complex, or one has
        no shape yet.
    """
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(
                f"expected parameters of a known shape, but {name} is still to be initialised "
                "(a lazy module); run the model once on a batch first"
            )
        if parameter.is_complex():
            raise ValueError(f"expected real parameters, got {parameter.dtype} in {name}")
    chosen = [
        (name, parameter.shape)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (select is None or select(name, parameter))
    ]
    if not chosen:
        raise ValueError(
            "expected at least one trainable parameter, got none; check requires_grad on the "
            "model's parameters"
            + ("" if select is None else " and the selection (a tied tensor has its first name)")
        )
    names, shapes = zip(*chosen, strict=True)
    return ParameterSpace(names, shapes)


Patterns = str | re.Pattern[str] | Sequence[str | re.Pattern[str]]


def matches(name: str, pattern: str | re.Pattern[str]) -> bool:
    """Whether a parameter's name fits a glob, or contains a match of a regular expression.

    A text that starts with ``re:`` is a regular expression, for the shell.

    >>> matches("h.0.attn.weight", "h.*.attn.*"), matches("h.10.mlp.bias", "re:^h[.]1?[02][.]")
    (True, True)
    """
    if isinstance(pattern, str):
        if not pattern.startswith("re:"):
            return fnmatchcase(name, pattern)
        pattern = re.compile(pattern.removeprefix("re:"))
    return pattern.search(name) is not None


def as_patterns(parameters: Patterns) -> tuple[str | re.Pattern[str], ...]:
    """One pattern or several, as a tuple.

    Raises
    ------
    TypeError
        If one is neither a text nor a compiled regular expression; ValueError if there is none, or
        a text is no regular expression.
    """
    found: tuple[Any, ...]
    if not isinstance(parameters, str | re.Pattern | Sequence):
        parameters = (parameters,)
    found = (parameters,) if isinstance(parameters, str | re.Pattern) else tuple(parameters)
    for pattern in found:
        if not isinstance(pattern, str | re.Pattern):
            raise TypeError(
                f"expected parameters by globs or regular expressions, got {pattern!r:.60}; such "
                "as parameters='transformer.h.*.attn.*'"
            )
        if isinstance(pattern, str) and pattern.startswith("re:"):
            try:
                re.compile(pattern.removeprefix("re:"))
            except re.error as error:
                raise ValueError(
                    f"expected a regular expression after re:, got {pattern!r} ({error})"
                ) from error
    if not found:
        raise ValueError("expected at least one pattern of parameter names, got none")
    return found


def selection_of(parameters: Patterns, names: Sequence[str]) -> Callable[[str, nn.Parameter], bool]:
    """``select`` for all names that fit any of the patterns; each must fit one at least.

    Raises
    ------
    ValueError
        If a pattern fits no name; says which there are.
    """
    patterns = as_patterns(parameters)
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            text = pattern if isinstance(pattern, str) else pattern.pattern
            raise ValueError(f"expected parameters that fit {text!r}, got none; there are {shown}")
    return lambda name, _: any(matches(name, pattern) for pattern in patterns)
