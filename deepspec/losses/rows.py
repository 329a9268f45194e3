"""One pass over the data: which rows there are, their targets, and how much each counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepspec.classifier.checks import Sketch, checked_outputs, evaluate, require_finite
from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.weights import MeanOver, RowWeights, normalised
from deepspec.losses.base import Loss, Targets
from deepspec.losses.torch_modules import as_loss


@dataclass(frozen=True, eq=False, kw_only=True)
class DataRows:
    """The rows that count, in the order of the data.

    Attributes
    ----------
    criterion
        The loss.
    sketch
        Their outputs, or sums of these where they are too many.
    targets, weights, sequences
        t_i, w_i, and the number of the sample that row i is of.
    num_classes
        C, the outputs of the loss.
    width
        The outputs of the model.
    masks
        Which rows count: of each sample, (…); of samples that are one row each all in one tensor,
        (n,), and None where all do.
    is_plain
        Whether this is cross-entropy of classes whose rows weigh the same.
    """

    criterion: Loss
    sketch: Sketch
    targets: Tensor
    weights: Float[Tensor, " R"]
    sequences: Int[Tensor, " R"]
    num_classes: int
    width: int
    masks: list[Tensor] | Bool[Tensor, " n"] | None
    samples: int
    is_plain: bool

    @property
    def is_flat(self) -> bool:
        """Whether each sample is one row."""
        return not isinstance(self.masks, list)

    def kept(
        self, first: int, labels: Tensor
    ) -> tuple[Int[Tensor, " k"] | None, Bool[Tensor, "b ..."] | None]:
        """A batch's samples that have rows (None: all), and which rows of those count.

        Raises
        ------
        ValueError
            If the data are not those of the first pass.
        """
        stop = first + len(labels)
        if stop > self.samples:
            raise ValueError(
                f"expected the same data at every pass, got {self.samples} samples at the first "
                "and more at the second"
            )
        if self.masks is None:
            return None, None
        if isinstance(self.masks, Tensor):
            mask = self.masks[first:stop]
            return (None, None) if bool(mask.all()) else (mask.nonzero()[:, 0], None)
        parts = self.masks[first:stop]
        if any(part.shape != parts[0].shape for part in parts):
            raise ValueError(
                f"expected samples of one shape in a batch, but those from {first} differ from "
                "the first pass; give batches that do not shuffle"
            )
        rows = torch.stack(parts)
        has = rows.flatten(1).any(dim=1)
        if bool(has.all()):
            return None, rows
        index = has.nonzero()[:, 0]
        return index, rows[index]

    def same_targets(self, function: LogitFunction, labels: Tensor, rows: slice) -> bool:
        """Whether a batch's labels are what they were at the first pass."""
        mask = function.mask
        inner = () if mask is None else tuple(mask.shape[1:])
        moved = _classes_last(labels, function, len(inner) + 2)
        shape = (function.samples, *inner, self.width)
        try:
            found = self.criterion.targets(moved, shape, function.first).values
        except ValueError:
            return False
        if mask is not None:
            found = found[mask.flatten()]
        if found.dtype != self.targets.dtype:
            found = self.criterion.prepared(found, self.num_classes, self.targets.dtype)
        return torch.equal(found, self.targets[rows])


def _classes_last(labels: Tensor, function: LogitFunction, ndim: int) -> Tensor:
    """Labels of the outputs' shape, with their classes where the outputs have theirs."""
    if labels.is_floating_point() and labels.ndim == ndim:
        return function.layout.classes_last(labels)
    return labels


def read_rows(
    batches: Iterable[tuple[LogitFunction, Tensor]],
    loss: Any,
    num_classes: int | None,
    class_dim: int | None,
    row_weights: RowWeights | None,
    mean_over: MeanOver,
    logit_memory: int,
) -> DataRows:
    """The rows of data that come for the first time, checked.

    Raises
    ------
    ValueError
        If there is no row that counts; outputs or labels have the wrong shape or numbers; a row
        that counts has NaN or infinite logits, with the sample's number.
    TypeError
        If the loss is none that is known.
    """
    reader: _Reader | None = None
    for function, labels in batches:
        output = checked_outputs(evaluate(function), function, num_classes, class_dim)
        if reader is None:
            reader = _Reader(as_loss(loss, output.shape[-1]), output.shape[-1], row_weights)
        reader.read(function, output, _classes_last(labels, function, output.ndim), logit_memory)
    if reader is None or not reader.samples:
        raise ValueError("expected at least one sample, got none; is the dataset empty?")
    return reader.finished(mean_over)


class _Reader:
    """Rows gathered batch by batch."""

    def __init__(self, criterion: Loss, width: int, row_weights: RowWeights | None) -> None:
        if width < criterion.least_outputs:
            raise ValueError(
                f"expected logits of at least {criterion.least_outputs} classes, got {width}; for "
                "a sigmoid's logit z pass loss=torch.nn.BCEWithLogitsLoss(), or return "
                "torch.cat([torch.zeros_like(z), z], dim=1), whose softmax is that sigmoid"
            )
        self.criterion, self.width, self.row_weights = criterion, width, row_weights
        self.samples, self.seen = 0, 0
        self.sketch = Sketch(keep=True)
        self.parts: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []
        self.masks: list[Tensor] = []
        self.single = True

    def read(
        self, function: LogitFunction, output: Tensor, labels: Tensor, logit_memory: int
    ) -> None:
        """The next batch."""
        if output.shape[-1] != self.width:
            raise ValueError(
                "expected logits of one width, got several; does the model pad by batch?"
            )
        found = self._weighted(
            self.criterion.targets(labels, tuple(output.shape), function.first),
            function.first,
            tuple(output.shape[:-1]),
        )
        counted = found.scale > 0
        mask = counted.view(output.shape[:-1])
        self.single &= mask.ndim == 1
        self.masks.append(mask)
        rows = output.reshape(-1, self.width)
        if not bool(counted.all()):
            rows = rows[counted]
        require_finite(rows, function.of(function.inputs, function.samples, mask))
        self._keep(self.criterion.columns(rows), logit_memory)
        sample = torch.arange(len(mask), device=mask.device) + function.first
        sample = sample.repeat_interleave(max(mask[0].numel(), 1)) if len(mask) else sample
        self.parts.append(
            (
                found.values[counted],
                # A row of loss 0 is left out, and yet the mean may be over it, too.
                found.scale,
                found.mass,
                sample,
                counted,
            )
        )
        self.samples += function.samples

    def _weighted(self, targets: Targets, first: int, shape: tuple[int, ...]) -> Targets:
        if self.row_weights is None:
            return targets
        weights = self.row_weights.of(first, shape).to(targets.scale.device).flatten()
        return Targets(
            values=targets.values, scale=targets.scale * weights, mass=targets.mass * weights
        )

    def _keep(self, rows: Float[Tensor, "R C"], logit_memory: int) -> None:
        self.seen += rows.numel()
        if self.sketch.keep and 8 * self.seen > logit_memory:
            # What was kept so far is now sums only.
            smaller = Sketch(keep=False)
            for part in self.sketch.parts:
                smaller.add(part)
            self.sketch = smaller
        step = max(1, logit_memory // (32 * rows.shape[1])) if not self.sketch.keep else len(rows)
        for few in rows.split(max(step, 1)):
            self.sketch.add(few.double())

    def finished(self, mean_over: MeanOver) -> DataRows:
        """All rows, once their weights are known."""
        if self.row_weights is not None:
            self.row_weights.require_samples(self.samples)
        targets = [part[0] for part in self.parts]
        if len({part.is_floating_point() for part in targets}) > 1:
            # Some batches' soft labels happened to be classes.
            width = 2 if self.width == 1 else self.width
            targets = [self.criterion.prepared(part, width, torch.float64) for part in targets]
        values = torch.cat(targets)
        scale, mass, sequences, counted = (
            torch.cat([part[place] for part in self.parts]) for place in (1, 2, 3, 4)
        )
        weights = normalised(scale, mass, sequences, mean_over)[counted]
        sequences = sequences[counted]
        masks: list[Tensor] | Tensor | None
        if self.single:
            joined = torch.cat(self.masks)
            masks = None if bool(joined.all()) else joined
        else:
            masks = [row for mask in self.masks for row in mask.unbind(0)]
        plain = self.single and values.ndim == 1 and bool((weights == 1.0 / len(weights)).all())
        return DataRows(
            criterion=self.criterion,
            sketch=self.sketch,
            targets=values,
            weights=weights,
            sequences=sequences,
            num_classes=self.criterion.columns(weights.new_zeros(1, self.width)).shape[1],
            width=self.width,
            masks=masks,
            samples=self.samples,
            is_plain=plain and repr(self.criterion) == repr(as_loss(None, 2)),
        )
