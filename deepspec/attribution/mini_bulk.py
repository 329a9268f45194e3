"""The mini-bulk where it is: left of the bulk, inside it, or right of it.

In Papyan (2018) Fig. 1 and Papyan (2020) Fig. 5 the mini-bulk is the *left* of the two, so its
eigenvalues cannot be named by their places in the list. They are those whose eigenvectors lie
mostly in the cross-class part: ‖P_cross s_i‖² > 1/2 for the eigenvector s_i of S. Half is the one
threshold at which no eigenvalue can belong to two parts.

Whether cross-class means *cause* them is asked where they are. A knockout of rank r takes r
eigenvalues away somewhere. With d(x) the number it takes from above x, 0 ≤ d ≤ r, and the stretch
[a, b] in which the mini-bulk lies, d(a) − d(b) is the number it takes from there. Divided by the
number of mini-bulk eigenvalues in the stretch, that is 1 where the stretch loses them all, wherever
the bulk lies: what enters it from the right and leaves it to the left cancels out. By chance a
knockout takes of the stretch what its share of all the eigenvalues is, which the nulls measure.

d(x) needs no eigenvalue problem of its own. For nonsingular M and orthonormal E with complement W
the inertias add up, In(M) = In(WᵀM W) + In(EᵀM⁻¹E) (Haynsworth 1968, for the block inverse), so
with M = S − x the knockout takes d(x) = n₊(Eᵀ(S − x)⁻¹E) eigenvalues from above x: an r × r matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deepspec.class_structure.gram import Gram
from deepspec.class_structure.parts import CrossClass, MeanPart, WithinClass

MAJORITY = 0.5
STRETCH = (0.025, 0.975)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False, kw_only=True)
class MiniBulk:
    """Where the mini-bulk lies, beside the bulk.

    Attributes
    ----------
    count, rank
        How many eigenvectors lie mostly in the cross-class part, and that part's dimension.
    stretch
        The part of the spectrum that holds 95 % of them.
    quantiles, bulk_quantiles
        At 5, 25, 50, 75 and 95 %: of the mini-bulk's eigenvalues, and of those whose eigenvectors
        lie mostly within classes.
    decades
        Area between the two distribution functions on the log₁₀ axis: the mean distance, in
        decades, by which one must be moved to become the other.
    outside
        The share of the mini-bulk outside the 1–99 % range of the bulk.
    left
        How many of its eigenvalues the knockout of cross-class means leaves in the stretch.
    """

    count: int
    rank: int
    stretch: tuple[float, float]
    quantiles: Float[Tensor, " 5"]
    bulk_quantiles: Float[Tensor, " 5"]
    decades: float
    outside: float
    left: float

    @property
    def side(self) -> str:
        """ "left of", "inside" or "right of" the bulk: where its median lies."""
        if self.count == 0 or bool(self.bulk_quantiles.isnan().any()):
            return "nowhere beside"
        middle = float(self.quantiles[2])
        if middle < float(self.bulk_quantiles[0]):
            return "left of"
        return "right of" if middle > float(self.bulk_quantiles[-1]) else "inside"


@dataclass(frozen=True, eq=False, repr=False)
class Located:
    """The mini-bulk's eigenvalues, and S in its eigenvectors' coordinates to count in."""

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "m r"]
    members: Bool[Tensor, " r"]
    bulk: Bool[Tensor, " r"]
    stretch: tuple[float, float]

    def taken_above(self, basis: Float[Tensor, "m j"], level: float) -> int:
        """d(x): how many eigenvalues above x subtracting the part with this basis takes away."""
        inside = self.vectors.T @ basis
        outside = basis.T @ basis - inside.T @ inside
        # S − x is −x off the eigenvectors at hand.
        core = inside.T @ (inside / (self.values - level)[:, None]) - outside / level
        return int((torch.linalg.eigvalsh((core + core.T) / 2) > 0).sum())

    def removed(self, part: MeanPart) -> float:
        """The share of the stretch's mini-bulk eigenvalues that a knockout takes from there."""
        low, high = self.stretch
        there = int(((self.values >= low) & (self.values <= high) & self.members).sum())
        if not there:
            return float("nan")
        basis = part.basis
        # Just outside the stretch: the eigenvalues that end it are inside.
        below, above = low * (1 - 1e-9), high * (1 + 1e-9)
        taken = self.taken_above(basis, below) - self.taken_above(basis, above)
        return min(1.0, max(0.0, taken / there))


def locate(gram: Gram, cross: CrossClass) -> Located:
    """The eigenvalues whose eigenvectors lie mostly in the cross-class part, and where they are."""
    values, vectors = gram.eigenpairs
    above = values > gram.rounding
    values, vectors = values[above], vectors[:, above]
    share = cross.on_rows(vectors).square().sum(dim=0)
    within = WithinClass(cross.cells).on_rows(vectors).square().sum(dim=0)
    members = share > MAJORITY
    ends = (0.0, 0.0)
    if bool(members.any()):
        logs = values[members].log()
        low, high = torch.quantile(logs, logs.new_tensor(STRETCH), interpolation="nearest").tolist()
        ends = (float(torch.tensor(low).exp()), float(torch.tensor(high).exp()))
    return Located(values, vectors, members, within > MAJORITY, ends)


def describe_mini_bulk(located: Located, cross: CrossClass) -> MiniBulk:
    """Where it is, how separate from the bulk, and what is left there after the knockout."""
    mine, bulk = located.values[located.members], located.values[located.bulk]
    low, high = located.stretch
    there = int(((mine >= low) & (mine <= high)).sum()) if len(mine) else 0
    removed = located.removed(cross) if there else float("nan")
    return MiniBulk(
        count=len(mine),
        rank=cross.rank,
        stretch=located.stretch,
        quantiles=_quantiles(mine, QUANTILES),
        bulk_quantiles=_quantiles(bulk, QUANTILES),
        decades=decades_between(mine, bulk),
        outside=_outside(mine, bulk),
        left=there * (1 - removed) if there else 0.0,
    )


def _quantiles(values: Float[Tensor, " k"], at: tuple[float, ...]) -> Float[Tensor, " q"]:
    if not len(values):
        return torch.full((len(at),), torch.nan, dtype=torch.float64)
    return torch.quantile(values.double(), values.new_tensor(at).double()).cpu()


def _outside(mine: Float[Tensor, " k"], bulk: Float[Tensor, " j"]) -> float:
    if not len(mine) or not len(bulk):
        return float("nan")
    low, high = torch.quantile(bulk.double(), bulk.new_tensor((0.01, 0.99)).double()).tolist()
    return float(((mine < low) | (mine > high)).double().mean())


def decades_between(left: Float[Tensor, " k"], right: Float[Tensor, " j"]) -> float:
    """∫ |F − F'| d log₁₀ λ: the Wasserstein distance of two lists on the log axis.

    >>> round(decades_between(torch.tensor([1.0, 10.0]), torch.tensor([10.0, 100.0])), 6)
    1.0
    """
    if not len(left) or not len(right):
        return float("nan")
    logs = [values.double().log10().sort().values for values in (left, right)]
    points = torch.cat(logs).sort().values
    below = [torch.searchsorted(log, points, right=True) / len(log) for log in logs]
    return float(((below[0] - below[1]).abs()[:-1] * points.diff()).sum())
