"""What passes over the data tell before any work: logits, and whether to trust them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.generators import reseeded
from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.output import kind_of
from deepspec.classifier.remedies import explained
from deepspec.classifier.trees import by_sample, joinable, tensors

NEIGHBOURS = (
    "expected each sample's logits to depend on that sample alone, but they change with the rest "
    "of the batch; train batch normalisation with running statistics (track_running_stats=True; "
    "switched on afterwards they are 0 and 1 until training data went through in training mode)"
)


def evaluate(function: LogitFunction) -> Any:
    """The model's output on a batch, without a graph."""
    with torch.no_grad():
        return explained(lambda: function(function.parameters), "run", function)


def checked_outputs(
    output: Any, function: LogitFunction, num_classes: int | None, class_dim: int | None
) -> Tensor:
    """A batch's outputs (b, …, C), once they have such a shape.

    Raises
    ------
    ValueError
        If they are not (b, …, C), or C is not ``num_classes``.
    """
    samples = function.samples
    expected = f"({samples}, {'C' if num_classes is None else num_classes})"
    if not isinstance(output, Tensor):
        raise ValueError(
            f"expected logits of shape {expected} as a tensor or as output.logits, got "
            f"{kind_of(output)}; say where they are with logits=, a key, an index or a function "
            "of the output, such as logits=0"
        )
    if class_dim is not None and not -output.ndim <= class_dim < output.ndim:
        raise ValueError(
            f"expected logits with a dimension class_dim={class_dim}, got {tuple(output.shape)}; "
            "it is the one that holds the classes"
        )
    if output.ndim < 2 or output.shape[0] != samples:
        raise ValueError(
            f"expected logits of shape {expected}, got {tuple(output.shape)}; "
            "wrap the model so that it returns one row of class scores for each sample"
        )
    if num_classes is not None and output.shape[-1] != num_classes:
        where = "the last dimension" if class_dim is None else f"class_dim={class_dim}"
        raise ValueError(
            f"expected logits of shape {expected}, got {tuple(output.shape)}, which has "
            f"{output.shape[-1]} classes in {where}"
            + ("; pass class_dim= where they are in another one" if output.ndim > 2 else "")
        )
    if not output.is_floating_point():
        raise ValueError(f"expected real logits, got {output.dtype}; return scores, not classes")
    return output


def require_finite(rows: Float[Tensor, "R C"], function: LogitFunction) -> None:
    """Raise ValueError, with the sample, where a row that counts has NaN or infinite logits."""
    bad = ~torch.isfinite(rows).all(dim=1)
    if bool(bad.any()):
        index = int(bad.nonzero()[0])
        if function.mask is not None:
            index = int(function.mask.flatten().nonzero()[index]) // function.mask[0].numel()
        samples = function.samples
        inputs = [t[index] for t in tensors(function.inputs) if by_sample(t, samples)]
        clean = all(bool(torch.isfinite(row).all()) for row in inputs)
        raise ValueError(
            f"expected finite logits, got NaN or infinity at sample {function.first + index}; "
            + (
                "its input is finite: check the model's parameters"
                if clean
                else "its input has them already: leave it out or mend it"
            )
        )


def require_repeatable(
    again: Iterable[tuple[slice, LogitFunction, Tensor]],
    logits: Sketch,
    same_targets: Callable[[LogitFunction, Tensor, slice], bool],
    dtype: torch.dtype,
) -> None:
    """A second pass must give what the first gave, and no sample may depend on its neighbours.

    Every estimate here assumes one fixed matrix; shuffling, augmentation, dropout that ignores
    eval mode, or batch statistics would make it another one at each product.

    Raises
    ------
    ValueError
        If the model gives two answers on one batch, if data differ between passes, or if a
        sample's logits depend on the batch it is in.
    """
    tolerance = torch.finfo(dtype).eps ** 0.5 * max(1.0, logits.largest)

    def differ(left: Tensor, right: Tensor) -> bool:
        return left.shape != right.shape or (
            left.numel() > 0 and float((left - right).abs().max()) > tolerance
        )

    # Other random numbers than at the first pass, or the same ones could hide that they are used.
    with reseeded(1):
        _compare(again, logits, same_targets, differ)


def _compare(
    again: Iterable[tuple[slice, LogitFunction, Tensor]],
    logits: Sketch,
    same_targets: Callable[[LogitFunction, Tensor, slice], bool],
    differ: Callable[[Tensor, Tensor], bool],
) -> None:
    begun, stop, count = False, 0, 0
    for rows, function, label in again:
        second = evaluate(function).double()
        if not begun:
            with reseeded(2):
                once_more = evaluate(function).double()
            if differ(once_more, second):
                raise ValueError(
                    "expected a deterministic model, got two different outputs for the same "
                    "batch; remove the randomness that stays on in eval mode"
                )
            half = (function.samples + 1) // 2
            begun, first = True, function.head(half)
            if half < function.samples and differ(evaluate(first).double(), second[: first.rows]):
                raise ValueError(NEIGHBOURS)
        # A first batch of one sample has no neighbour to leave out: give it one.
        elif count == 1 and joinable(first.inputs, function.inputs):
            both = evaluate(first.joined(function.head(1))).double()[: first.rows]
            if differ(logits.of(both), logits.rows(slice(0, first.rows))):
                raise ValueError(NEIGHBOURS)
        if not same_targets(function, label, rows) or differ(logits.of(second), logits.rows(rows)):
            raise ValueError(
                f"expected the same data at every pass, but samples {function.first}.."
                f"{function.first + function.samples - 1} differ at the second; turn off shuffling "
                "and random augmentation"
            )
        stop, count = rows.stop, function.first + function.samples
    if stop != len(logits):
        raise ValueError(
            f"expected the same data at every pass, got {len(logits)} rows at the first and "
            f"{stop} at the second"
        )


class Sketch:
    """Rows of logits, or where they are too many to keep a few sums of each, to compare with.

    >>> sketch = Sketch(keep=False)
    >>> z = torch.ones(2, 8).double()
    >>> sketch.add(z)
    >>> bool((sketch.of(z) == sketch.rows(slice(0, 2))).all()), sketch.largest
    (True, 1.0)
    """

    SUMS = 4

    def __init__(self, *, keep: bool) -> None:
        self.keep, self.largest = keep, 0.0
        self.parts: list[Tensor] = []
        self._all: Tensor | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def add(self, rows: Float[Tensor, "R C"]) -> None:
        """The next rows."""
        if rows.numel():
            self.largest = max(self.largest, float(rows.abs().max()))
        self.parts.append(self.of(rows))

    def of(self, rows: Float[Tensor, "R C"]) -> Tensor:
        """What is kept of some rows."""
        if self.keep:
            return rows.double()
        width = rows.shape[1]
        signs = torch.randn(width, self.SUMS, generator=torch.Generator().manual_seed(0))
        signs = (signs / width**0.5).to(rows.device, rows.dtype)
        return torch.cat([(rows @ signs).double(), rows.amax(1, keepdim=True).double()], dim=1)

    def all(self) -> Tensor:
        """What is kept of all rows."""
        if self._all is None:
            self._all = torch.cat(self.parts)
            self.parts = [self._all]
        return self._all

    def rows(self, rows: slice) -> Tensor:
        """What is kept of some."""
        return self.all()[rows]
