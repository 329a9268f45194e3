"""What passes over the data tell before any work: logits, labels, and whether to trust them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.classifier.generators import reseeded
from deepspec.classifier.labels import class_indices
from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.output import kind_of
from deepspec.classifier.remedies import explained
from deepspec.classifier.trees import by_sample, tensors

NEIGHBOURS = (
    "expected each sample's logits to depend on that sample alone, but they change with the rest "
    "of the batch; train batch normalisation with running statistics (track_running_stats=True; "
    "switched on afterwards they are 0 and 1 until training data went through in training mode)"
)


def logits_and_labels(
    batches: Iterable[tuple[LogitFunction, Tensor]], num_classes: int | None
) -> tuple[Float[Tensor, "n C"], Int[Tensor, " n"]]:
    """One pass: the logits in float64 and the labels, both on the batches' device, checked.

    Raises
    ------
    ValueError
        Empty data; logits that are not (batch, C) or not C = ``num_classes``; labels that are
        not one integer in 0..C−1 a sample; NaN or infinite logits, with the sample's index.
    """
    logits, labels, count = [], [], 0
    for function, label in batches:
        logits.append(_checked_logits(evaluate(function), function, num_classes))
        labels.append(class_indices(label, logits[-1].shape[1], function.first))
        count += function.samples
    if count == 0:
        raise ValueError("expected at least one sample, got none; is the dataset empty?")
    if len({part.shape[1] for part in logits}) > 1:
        raise ValueError("expected logits of one width, got several; does the model pad by batch?")
    return torch.cat(logits), torch.cat(labels)


def evaluate(function: LogitFunction) -> Any:
    """The model's output on a batch, without a graph."""
    with torch.no_grad():
        return explained(lambda: function(function.parameters), "run", function)


def _checked_logits(output: Any, function: LogitFunction, num_classes: int | None) -> Tensor:
    samples = function.samples
    expected = f"({samples}, {'C' if num_classes is None else num_classes})"
    if not isinstance(output, Tensor):
        raise ValueError(
            f"expected logits of shape {expected} as a tensor or as output.logits, got "
            f"{kind_of(output)}; say where they are with logits=, a key, an index or a function "
            "of the output, such as logits=0"
        )
    wrong_width = num_classes is not None and output.ndim == 2 and output.shape[1] != num_classes
    if output.ndim != 2 or output.shape[0] != samples or wrong_width:
        raise ValueError(
            f"expected logits of shape {expected}, got {tuple(output.shape)}; "
            "wrap the model so that it returns one row of class scores for each sample"
        )
    if output.shape[1] < 2:
        raise ValueError(
            "expected logits of at least 2 classes, got 1; for a sigmoid's logit z return "
            "torch.cat([torch.zeros_like(z), z], dim=1), whose softmax is that sigmoid"
        )
    if not output.is_floating_point():
        raise ValueError(f"expected real logits, got {output.dtype}; return scores, not classes")
    bad = ~torch.isfinite(output).all(dim=1)
    if bool(bad.any()):
        index = int(bad.nonzero()[0])
        rows = [t[index] for t in tensors(function.inputs) if by_sample(t, samples)]
        clean = all(bool(torch.isfinite(row).all()) for row in rows)
        raise ValueError(
            f"expected finite logits, got NaN or infinity at sample {function.first + index}; "
            + (
                "its input is finite: check the model's parameters"
                if clean
                else "its input has them already: leave it out or mend it"
            )
        )
    return output.double()


def require_repeatable(
    again: Iterable[tuple[LogitFunction, Tensor]],
    logits: Float[Tensor, "n C"],
    labels: Int[Tensor, " n"],
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
    tolerance = torch.finfo(dtype).eps ** 0.5 * max(1.0, float(logits.abs().max()))

    def differ(left: Tensor, right: Tensor) -> bool:
        return left.shape != right.shape or float((left - right).abs().max()) > tolerance

    # Other random numbers than at the first pass, or the same ones could hide that they are used.
    with reseeded(1):
        _compare(again, logits, labels, differ)


def _compare(
    again: Iterable[tuple[LogitFunction, Tensor]],
    logits: Tensor,
    labels: Tensor,
    differ: Callable[[Tensor, Tensor], bool],
) -> None:
    start = 0
    for function, label in again:
        stop = start + function.samples
        second = evaluate(function).double()
        if start == 0:
            with reseeded(2):
                once_more = evaluate(function).double()
            if differ(once_more, second):
                raise ValueError(
                    "expected a deterministic model, got two different outputs for the same "
                    "batch; remove the randomness that stays on in eval mode"
                )
            half = (function.samples + 1) // 2
            first = function.head(half)
            if half < function.samples and differ(evaluate(first).double(), second[:half]):
                raise ValueError(NEIGHBOURS)
        # A first batch of one sample has no neighbour to leave out: give it one.
        elif start == 1 and differ(
            evaluate(first.joined(function.head(1))).double()[:1], logits[:1]
        ):
            raise ValueError(NEIGHBOURS)
        label = class_indices(label, logits.shape[1], function.first)
        same_labels = torch.equal(label, labels[start:stop])
        if not same_labels or differ(second, logits[start:stop]):
            raise ValueError(
                f"expected the same data at every pass, but samples {function.first}.."
                f"{function.first + function.samples - 1} differ at the second; turn off shuffling "
                "and random augmentation"
            )
        start = stop
    if start != len(labels):
        raise ValueError(
            f"expected the same data at every pass, got {len(labels)} samples at the first and "
            f"{start} at the second"
        )
