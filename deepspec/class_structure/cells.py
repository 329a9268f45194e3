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
        Class c of each sample.
    log_weights
        log w_{i,c'}, −∞ for what does not count. K = C columns where there is a cross-class c',
        K = 1 where there is none, as for features.
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
    """

    labels: Int[Tensor, " n"]
    log_weights: Float[Tensor, "n K"]
    own: Bool[Tensor, "C K"]
    share: Float[Tensor, "n K"]
    weights: Float[Tensor, "C K"]
    row: Float[Tensor, " C"]
    row_share: Float[Tensor, "C K"]
    dtype: torch.dtype

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
        return found.index_add_(0, self.labels, self.root_share[:, :, None] * shaped)

    def combination(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "m k"]:
        """Σ cells_{c,c'} a_{c,c'}, float64."""
        return (self.root_share[:, :, None] * cells[self.labels]).flatten(0, 1)

    def units(self) -> Float[Tensor, "C K r"]:
        """Each occupied cell's own coordinates, as columns."""
        found = self.share.new_zeros(*self.weights.shape, len(self.places))
        found[self.places[:, 0], self.places[:, 1], torch.arange(len(self.places))] = 1.0
        return found

    def relabelled(self, labels: Int[Tensor, " n"]) -> Cells:
        """The same vectors and weights under other labels."""
        return _cells(self.log_weights, labels, self.own, self.dtype)

    def regrouped(self, groups: Int[Tensor, " n"]) -> Cells:
        """Means over any groups of samples, each sample's *own* label still left out.

        A sterner null than other labels. Under those, c' ≠ c admits each sample's true label,
        whose probability near one outweighs all else, and the means come out near zero. Here the
        vectors c' ≠ y_i keep their weights, and all that is lost is that groups are classes.
        """
        left_out = self.log_weights.masked_fill(self.own[self.labels], -torch.inf)
        return _cells(left_out, groups, torch.zeros_like(self.own), self.dtype)


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
    return weigh_cells(log_weights, labels, log_weights.shape[1], dtype, cross=True)


def _cells(
    log_weights: Float[Tensor, "n K"],
    labels: Int[Tensor, " n"],
    own: Bool[Tensor, "C K"],
    dtype: torch.dtype,
) -> Cells:
    index = labels[:, None].expand(log_weights.shape)
    nothing = log_weights.new_full(own.shape, -torch.inf)
    # Relative to the largest of each cell, so that a cell of tiny weights keeps its digits.
    largest = nothing.scatter_reduce(0, index, log_weights, "amax")
    anchor = torch.where(largest > -torch.inf, largest, 0.0)
    relative = (log_weights - anchor[labels]).exp()
    total = torch.zeros_like(nothing).scatter_add(0, index, relative)
    share = torch.where(total[labels] > 0, relative / total[labels], 0.0)
    log_cell = torch.where(total > 0, largest + total.log(), nothing)
    log_others = log_cell.masked_fill(own, -torch.inf)
    log_row = torch.logsumexp(log_others, dim=1, keepdim=True)
    row_share = torch.where(log_row > -torch.inf, (log_others - log_row).exp(), 0.0)
    return Cells(
        labels=labels,
        log_weights=log_weights,
        own=own,
        share=share,
        weights=log_cell.exp(),
        row=log_row[:, 0].exp(),
        row_share=row_share,
        dtype=dtype,
    )


def with_dtype(cells: Cells, dtype: torch.dtype) -> Cells:
    """The same cells, for vectors of another precision."""
    return replace(cells, dtype=dtype)
