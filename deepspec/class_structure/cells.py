"""Which vector counts how much in which mean: weights, labels, and the means' own directions.

Every second moment of the library is Σ w_{i,c'} v_{i,c'} v_{i,c'}ᵀ = DᵀD, the rows of D being
√w_{i,c'} v_{i,c'}ᵀ for sample i of class c(i) and cross-class c' (Papyan 2020, §1.7–1.10). On the
row side the mean of cell (c, c') is √w_{c,c'} v_{c,c'} = Dᵀ a_{c,c'} with *orthonormal* vectors
a_{c,c'}, of entries √π_{i,c'} on the samples i of class c: they know weights and labels, and
nothing of the vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepspec.arguments import is_one_of, shown

Convention = Literal["jmlr2020", "icml2019"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Cells:
    """The cells (c, c') of n samples under a labelling; everything in float64.

    Shares of an empty class are zero; those of a weight that underflows are right, because they
    are formed from logarithms.

    Attributes
    ----------
    labels
        Class c of each sample; its group, where classes are grouped.
    classes
        The class itself.
    log_weights
        log w_{i,c'}, −∞ for what does not count. K = C columns where there is a cross-class c',
        K = 1 where there is none, as for features.
    grouping, columns
        The group of each class, and the cell's column of each (i, c'): the group of c', or one
        column beyond them for c' = y_i, so that means of groups are those of their classes taken
        together. None where each class is its own group, and its column c'.
    own
        Cells that are left out of the class means: c' = c, or none.
    share
        π_{i,c'} = w_{i,c'}/w_{c(i),c'}.
    weights
        w_{c,c'}.
    row
        w_c = Σ_{c' not own} w_{c,c'}.
    row_share
        π_{c,c'} = w_{c,c'}/w_c, zero on ``own``.
    dtype
        Of the vectors that projectors onto the means take and return.
    sample
        Where a sample has several vectors (at several positions): which one's each is. Labels are
        shuffled among samples then.
    """

    labels: Int[Tensor, " n"]
    classes: Int[Tensor, " n"]
    log_weights: Float[Tensor, "n K"]
    grouping: Int[Tensor, " C"] | None
    columns: Int[Tensor, "n K"] | None
    own: Bool[Tensor, "C K"]
    share: Float[Tensor, "n K"]
    weights: Float[Tensor, "C K"]
    row: Float[Tensor, " C"]
    row_share: Float[Tensor, "C K"]
    dtype: torch.dtype
    sample: Int[Tensor, " n"] | None = None

    @property
    def size(self) -> int:
        """m = nK, the number of rows of D."""
        return self.share.numel()

    @cached_property
    def occupied(self) -> Bool[Tensor, "C K"]:
        """The cells that hold any weight."""
        return self.weights > 0

    @cached_property
    def root_share(self) -> Float[Tensor, "n K"]:
        """√π_{i,c'}, the entries of a_{c,c'}."""
        return self.share.sqrt()

    @cached_property
    def root_row_share(self) -> Float[Tensor, "C K"]:
        """√π_{c,c'}: the class mean of c in the coordinates of its cells."""
        return self.row_share.sqrt()

    @cached_property
    def root_class_share(self) -> Float[Tensor, " C"]:
        """√(w_c/Σw): the global mean in the coordinates of the class means."""
        total = self.row.sum()
        return (self.row / total if float(total) > 0 else self.row).sqrt()

    @cached_property
    def places(self) -> Int[Tensor, "r 2"]:
        """(c, c') of the occupied cells, row by row."""
        return self.occupied.nonzero()

    def coordinates(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "C K k"]:
        """⟨a_{c,c'}, x⟩ for every cell, float64."""
        shaped = columns.double().reshape(*self.share.shape, -1)
        found = shaped.new_zeros(*self.weights.shape, shaped.shape[2])
        if self.columns is None:
            return found.index_add_(0, self.labels, self.root_share[:, :, None] * shaped)
        weighted = (self.root_share[:, :, None] * shaped).flatten(0, 1)
        found.flatten(0, 1).index_add_(0, self.places_of_rows, weighted)
        return found

    def combination(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "m k"]:
        """Σ cells_{c,c'} a_{c,c'}, float64."""
        if self.columns is None:
            return (self.root_share[:, :, None] * cells[self.labels]).flatten(0, 1)
        return self.root_share.flatten()[:, None] * cells.flatten(0, 1)[self.places_of_rows]

    @cached_property
    def places_of_rows(self) -> Int[Tensor, " m"]:
        """The number of the cell of each (i, c'), row by row; where classes are grouped."""
        assert self.columns is not None
        return (self.labels[:, None] * self.weights.shape[1] + self.columns).flatten()

    def by_class(
        self, entries: Float[Tensor, "n K"], chosen: Bool[Tensor, " C"]
    ) -> Float[Tensor, "m r"]:
        """A column for each chosen class: the entries of its samples' rows, and zeros."""
        samples = chosen[self.labels].nonzero()[:, 0]
        column = (chosen.cumsum(0) - 1)[self.labels[samples]]
        found = entries.new_zeros(*entries.shape, int(chosen.sum()))
        found[samples, :, column] = entries[samples]
        return found.flatten(0, 1)

    def units(self) -> Float[Tensor, "C K r"]:
        """Each occupied cell's own coordinates, as columns."""
        found = self.share.new_zeros(*self.weights.shape, len(self.places))
        found[self.places[:, 0], self.places[:, 1], torch.arange(len(self.places))] = 1.0
        return found

    @property
    def sample_labels(self) -> Int[Tensor, " s"]:
        """The class of each sample that has any vector."""
        if self.sample is None:
            return self.labels
        present, place = torch.unique(self.sample, return_inverse=True)
        return self.labels.new_zeros(len(present)).index_put((place,), self.labels)

    @property
    def sample_classes(self) -> Int[Tensor, " s"]:
        """The same before classes are grouped."""
        if self.sample is None:
            return self.classes
        present, place = torch.unique(self.sample, return_inverse=True)
        return self.classes.new_zeros(len(present)).index_put((place,), self.classes)

    def of_samples(self, labels: Int[Tensor, " s"]) -> Int[Tensor, " n"]:
        """Each vector's label, from those of the samples that have any."""
        if self.sample is None:
            return labels
        return labels[torch.unique(self.sample, return_inverse=True)[1]]

    def relabelled(self, labels: Int[Tensor, " n"]) -> Cells:
        """The same vectors and weights under other classes."""
        return _cells(self.log_weights, labels, self.own, self.dtype, self.grouping)

    def regrouped(self, groups: Int[Tensor, " n"]) -> Cells:
        """Means over any groups of samples, each sample's *own* label still left out.

        A sterner null than other labels. Under those, c' ≠ c admits each sample's true label,
        whose probability near one outweighs all else, and the means come out near zero. Here the
        vectors c' ≠ y_i keep their weights, and all that is lost is that groups are classes.
        """
        if self.grouping is None:
            left_out = self.log_weights.masked_fill(self.own[self.labels], -torch.inf)
            return _cells(left_out, groups, torch.zeros_like(self.own), self.dtype)
        assert self.columns is not None
        left_out = self.log_weights.masked_fill(self.columns == self.own.shape[0], -torch.inf)
        labels, none = self.grouping[groups], torch.zeros_like(self.own)
        return _summed(left_out, groups, labels, none, self.dtype, self.grouping, self.columns)


def weigh_cells(
    log_weights: Float[Tensor, "n K"],
    labels: Int[Tensor, " n"],
    num_classes: int,
    dtype: torch.dtype,
    *,
    cross: bool,
) -> Cells:
    """The cells of weighted vectors; with ``cross`` the columns are cross-classes c'.

    >>> cells = weigh_cells(torch.zeros(3, 1), torch.tensor([0, 0, 1]), 2, torch.float64,
    ...     cross=False)
    >>> cells.weights[:, 0], cells.share[:, 0]
    (tensor([2., 1.], dtype=torch.float64), tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64))
    """
    columns = log_weights.shape[1]
    own = torch.zeros(num_classes, columns, dtype=torch.bool, device=labels.device)
    if cross:
        own.fill_diagonal_(True)
    return _cells(log_weights.double(), labels, own, dtype)


def weigh_gradients(
    log_probabilities: Float[Tensor, "n C"],
    labels: Int[Tensor, " n"],
    dtype: torch.dtype,
    convention: Convention = "jmlr2020",
    log_row_weights: Float[Tensor, " n"] | None = None,
    grouping: Int[Tensor, " C"] | None = None,
) -> Cells:
    """The cells of the extended gradients J_iᵀ(p_i − e_c') in either convention.

    ============  ===============================  ==========  ====================
    convention    vectors                          weights     source
    ============  ===============================  ==========  ====================
    ``jmlr2020``  g_{i,c'} = J_iᵀ(p_i − e_c')       p_{i,c'}/n  Papyan (2020) §6
    ``icml2019``  δ_{i,c'} = √p_{i,c'} g_{i,c'}     1/n         Papyan (2019) eq. 13
    ============  ===============================  ==========  ====================

    Both have the same rows √w v of D, and so the same G; only what is averaged differs. With
    unequal classes the 2019 paper's averages over classes become averages weighted by class size
    (its footnote 1), which is what weight 1/n a sample gives.

    Raises
    ------
    ValueError
        If the convention is neither of the two.
    """
    if log_row_weights is None:
        log_row_weights = log_probabilities.new_full((len(labels),), -math.log(len(labels)))
    rows = log_row_weights[:, None]
    if not is_one_of(convention, ("jmlr2020", "icml2019")):
        raise ValueError(f'expected convention "jmlr2020" or "icml2019", got {shown(convention)}')
    if convention == "jmlr2020":
        log_weights = log_probabilities + rows
    else:
        log_weights = torch.zeros_like(log_probabilities) + rows
    if grouping is None:
        return weigh_cells(log_weights, labels, log_weights.shape[1], dtype, cross=True)
    grouping = grouping.to(labels.device)
    return _cells(log_weights.double(), labels, own_of_groups(grouping), dtype, grouping)


def own_of_groups(grouping: Int[Tensor, " C"]) -> Bool[Tensor, "g h"]:
    """The cells of c' = y_i: the last column, beyond one for each group."""
    count = int(grouping.max()) + 1
    own = torch.zeros(count, count + 1, dtype=torch.bool, device=grouping.device)
    own[:, count] = True
    return own


def columns_of(grouping: Int[Tensor, " C"], classes: Int[Tensor, " n"]) -> Int[Tensor, "n C"]:
    """The column of each (i, c'): the group of c', or for c' = y_i the last one.

    >>> columns_of(torch.tensor([0, 0, 1]), torch.tensor([1]))
    tensor([[0, 2, 1]])
    """
    columns = grouping.expand(len(classes), -1).clone()
    return columns.scatter_(1, classes[:, None], int(grouping.max()) + 1)


def _cells(
    log_weights: Float[Tensor, "n K"],
    classes: Int[Tensor, " n"],
    own: Bool[Tensor, "C K"],
    dtype: torch.dtype,
    grouping: Int[Tensor, " C"] | None = None,
) -> Cells:
    labels, columns = classes, None
    if grouping is not None:
        labels, columns = grouping[classes], columns_of(grouping, classes)
    return _summed(log_weights, classes, labels, own, dtype, grouping, columns)


def _summed(
    log_weights: Float[Tensor, "n K"],
    classes: Int[Tensor, " n"],
    labels: Int[Tensor, " n"],
    own: Bool[Tensor, "C K"],
    dtype: torch.dtype,
    grouping: Int[Tensor, " C"] | None,
    columns: Int[Tensor, "n K"] | None,
) -> Cells:
    if columns is None:
        columns_or_all = torch.arange(log_weights.shape[1], device=labels.device)
        place = (labels[:, None] * own.shape[1] + columns_or_all).flatten()
    else:
        place = (labels[:, None] * own.shape[1] + columns).flatten()
    flat = log_weights.flatten()
    nothing = log_weights.new_full((own.numel(),), -torch.inf)
    # Relative to the largest of each cell, so that a cell of tiny weights keeps its digits.
    largest = nothing.scatter_reduce(0, place, flat, "amax")
    anchor = torch.where(largest > -torch.inf, largest, 0.0)
    relative = (flat - anchor[place]).exp()
    total = torch.zeros_like(nothing).scatter_add(0, place, relative)
    share = torch.where(total[place] > 0, relative / total[place], 0.0).view(log_weights.shape)
    largest, total, nothing = (t.view(own.shape) for t in (largest, total, nothing))
    log_cell = torch.where(total > 0, largest + total.log(), nothing)
    return Cells(
        **of_logarithms(log_cell, own),
        labels=labels,
        classes=classes,
        log_weights=log_weights,
        grouping=grouping,
        columns=columns,
        own=own,
        share=share,
        dtype=dtype,
    )


def of_logarithms(
    log_cell: Float[Tensor, "C K"], own: Bool[Tensor, "C K"]
) -> dict[str, Float[Tensor, "..."]]:
    """Weights of cells and of classes, and shares of the latter, from the cells' logarithms."""
    log_others = log_cell.masked_fill(own, -torch.inf)
    log_row = torch.logsumexp(log_others, dim=1, keepdim=True)
    row_share = torch.where(log_row > -torch.inf, (log_others - log_row).exp(), 0.0)
    return {"weights": log_cell.exp(), "row": log_row[:, 0].exp(), "row_share": row_share}


def with_dtype(cells: Cells, dtype: torch.dtype) -> Cells:
    """The same cells, for vectors of another precision."""
    return replace(cells, dtype=dtype)
