"""Parts of G where rows × classes are too many to keep: two passes, a chunk of rows at a time.

A part inside the means is L A P Aᵀ Lᵀ, with A the orthonormal directions of the cells on the rows
(:mod:`deepspec.class_structure.cells`) and P small. So the first pass sums Aᵀ LᵀJ v over chunks,
into as many numbers as there are cells, and the second spreads P of them: L A (·), then Jᵀ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from deepspec.class_structure.cells import (
    Cells,
    Convention,
    columns_of,
    of_logarithms,
    own_of_groups,
)
from deepspec.class_structure.parts import CellMeans, MeanPart, Part
from deepspec.classifier.softmax import mean_minus_each, mean_minus_each_transposed
from deepspec.engine.kernels import Outputs
from deepspec.operators.pullback import LossHessian, StreamedForm
from deepspec.problem import Problem

# Cells (groups × groups) in float64 beyond this would be what streaming is to avoid.
MOST_CELLS = 2**24


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class StreamedCells(Cells):
    """Cells whose weights are known and whose rows' shares are formed where they are needed."""

    problem: Problem
    convention: Convention
    log_cell: Float[Tensor, "g h"]

    @property
    def size(self) -> int:
        return self.problem.num_rows * self.problem.num_classes

    def coordinates(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "C K k"]:
        raise MemoryError(_too_many(self.problem))

    def combination(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "m k"]:
        raise MemoryError(_too_many(self.problem))

    def at_rows(self, table: Shaped[Tensor, "C K"]) -> Shaped[Tensor, "n K"]:
        raise MemoryError(_too_many(self.problem))

    def of_rows(
        self, rows: slice, outputs: Float[Tensor, "b C"]
    ) -> tuple[Float[Tensor, "b C"], Float[Tensor, "b C"], Float[Tensor, "b C"], Tensor]:
        """p, √(w_i p), √π and the numbers of the cells, of some rows."""
        assert self.grouping is not None
        logs, log_weights = log_weights_of(self.problem, self.convention, rows, outputs)
        place = self.labels[rows, None] * self.log_cell.shape[1]
        place = place + columns_of(self.grouping, self.classes[rows])
        root_share = (0.5 * (log_weights - self.log_cell.flatten()[place])).exp()
        root = (0.5 * logs).exp() * self.problem.weights[rows, None].sqrt()
        return logs.exp(), root, root_share, place


def log_weights_of(
    problem: Problem, convention: Convention, rows: slice, outputs: Float[Tensor, "b C"]
) -> tuple[Float[Tensor, "b C"], Float[Tensor, "b C"]]:
    """log p and log w_{i,c'} of some rows."""
    logs = torch.log_softmax(outputs.double(), dim=1)
    of_row = problem.weights[rows, None].log()
    return logs, (logs if convention == "jmlr2020" else torch.zeros_like(logs)) + of_row


def streamed_cells(
    problem: Problem, convention: Convention, grouping: Int[Tensor, " C"] | None
) -> StreamedCells:
    """The cells of groups of classes, from one pass over the logits.

    Raises
    ------
    ValueError
        If there are no groups and C² cells are too many.
    """
    classes = problem.num_classes
    if grouping is None:
        if classes * (classes + 1) > MOST_CELLS:
            raise ValueError(
                f"expected groups= of the {classes:,} classes, for {classes:,}² cells are too "
                "many; deepspec.class_structure.frequent_classes makes some from the labels"
            )
        grouping = torch.arange(classes)
    grouping = grouping.to(problem.device)
    own = own_of_groups(grouping)
    labels, log_cell = grouping[problem.labels], torch.full(own.shape, -torch.inf).double()
    log_cell = log_cell.to(problem.device)
    for rows, outputs in problem.chunks():
        _, log_weights = log_weights_of(problem, convention, rows, outputs)
        place = labels[rows, None] * own.shape[1] + columns_of(grouping, problem.labels[rows])
        log_cell = torch.logaddexp(
            log_cell, _log_sums(log_weights, place, own.numel()).view_as(own)
        )
    empty = log_cell.new_zeros(0, classes)
    return StreamedCells(
        **of_logarithms(log_cell, own),
        labels=labels,
        classes=problem.labels,
        log_weights=empty,
        share=empty,
        grouping=grouping,
        columns=None,
        own=own,
        dtype=problem.dtype,
        problem=problem,
        convention=convention,
        log_cell=log_cell,
    )


def _log_sums(
    values: Float[Tensor, "b C"], place: Int[Tensor, "b C"], count: int
) -> Float[Tensor, " m"]:
    """log Σ exp of the values at each place."""
    nothing = values.new_full((count,), -torch.inf)
    largest = nothing.scatter_reduce(0, place.flatten(), values.flatten(), "amax")
    anchor = torch.where(largest > -torch.inf, largest, 0.0)
    sums = values.new_zeros(count)
    sums.scatter_add_(0, place.flatten(), (values - anchor[place]).exp().flatten())
    return torch.where(sums > 0, anchor + sums.log(), nothing)


@dataclass(frozen=True, eq=False, repr=False)
class StreamedPart(StreamedForm):
    """L P Lᵀ for a part of streamed cells."""

    cells: StreamedCells
    part: Part
    name: Callable[[], str]

    @property
    def _means(self) -> MeanPart:
        return self.part if isinstance(self.part, MeanPart) else CellMeans(self.cells)

    def gather(
        self, columns: Float[Tensor, "b C k"], rows: slice, outputs: Outputs
    ) -> Float[Tensor, "g h k"]:
        p, root, root_share, place = self.cells.of_rows(rows, outputs())
        seen = (root * root_share)[:, :, None] * mean_minus_each(p, columns)
        sums = seen.new_zeros(self.cells.own.numel(), columns.shape[2])
        sums.index_add_(0, place.flatten(), seen.flatten(0, 1))
        return sums.view(*self.cells.own.shape, -1)

    def spread(
        self,
        gathered: Float[Tensor, "g h k"],
        columns: Float[Tensor, "b C k"] | None,
        rows: slice,
        outputs: Outputs,
    ) -> Float[Tensor, "b C k"]:
        p, root, root_share, place = self.cells.of_rows(rows, outputs())
        inside = self._means.on_cells(gathered).flatten(0, 1)
        amounts = (root * root_share)[:, :, None] * inside[place]
        means = mean_minus_each_transposed(p, amounts)
        if self.part is self._means or isinstance(self.part, MeanPart):
            return means
        assert columns is not None
        return LossHessian(self.cells.problem).on_rows(columns, rows, outputs) - means

    @property
    def wants_columns(self) -> bool:
        return not isinstance(self.part, MeanPart)

    def describe(self) -> str:
        return self.name()


def _too_many(problem: Problem) -> str:
    needed = 8 * problem.num_rows * problem.num_classes
    return (
        f"expected rows × classes to fit logit_memory={problem.logit_memory:,} for what works on "
        f"rows, got {problem.num_rows:,} × {problem.num_classes:,}; pass logit_memory={needed} or "
        "more if the memory is there, or use operators on parameters: array.parts, second_moment"
    )
