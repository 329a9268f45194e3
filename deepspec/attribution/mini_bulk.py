"""The mini-bulk where it is: left of the bulk, inside it, or right of it.

In Papyan (2018) Fig. 1 and Papyan (2020) Fig. 5 the mini-bulk is the *left* of the two, so its
eigenvalues cannot be named by their places in the list. They are those whose eigenvectors lie
mostly in the cross-class part: ‖P_cross s_i‖² > 1/2 for the eigenvector s_i of S. Half is the one
threshold at which no eigenvalue can belong to two parts.

Whether cross-class means *cause* them is asked where they are. A knockout of rank r takes r
eigenvalues away somewhere: let d(x) be the number it takes from above x, 0 ≤ d ≤ r, and F(x) the
number of mini-bulk eigenvalues above x. What takes the mini-bulk and nothing else has d = F, so

    R = 1 − sup_x |d(x) − F(x)| / #mini-bulk,   x from the mini-bulk's low end upwards,

is 1 for it, wherever the bulk lies. A mini-bulk to the *right* of the bulk is missed by a knockout
that acts on the bulk, d = 0 where F is full. To the *left*, any knockout that is not aligned with
the mini-bulk stirs scatter into those small eigenvalues and lifts them, so that to count what is
gone from there would not do; but it takes its r from the bulk above, where F = 0. *Inside*, a
knockout that acts on everything alike has losses spread over the bulk, about one half away from a
mini-bulk that is narrow, and closer to one that is as wide as the bulk: then nulls are high, and
rightly so. Losses below the low end are not counted: those that pure rank costs end up there.

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
from deepspec.class_structure.parts import CrossClass, WithinClass
from deepspec.storage.display import Result, Table, Tabular

MAJORITY = 0.5
STRETCH = (0.025, 0.975)
# Counts are taken just beside eigenvalues, at this many quantiles.
TOUCH, COMPARED = 1e-9, 33
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MiniBulk(Result, Tabular):
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

    def _words(self) -> list[str]:
        if not self.count:
            return ["no eigenvector lies mostly in the cross-class part"]
        return [
            f"{self.count} eigenvalues {self.side} the bulk",
            f"λ from {self.stretch[0]:.3g} to {self.stretch[1]:.3g}",
            f"{self.decades:.1f} decades from it",
            f"{self.outside:.0%} outside its range",
        ]

    def _table(self) -> Table:
        return {
            "below": list(QUANTILES),
            "mini-bulk": self.quantiles,
            "bulk": self.bulk_quantiles,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Located:
    """The mini-bulk's eigenvalues, and S in its eigenvectors' coordinates to count in."""

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "m r"]
    members: Bool[Tensor, " r"]
    bulk: Bool[Tensor, " r"]
    stretch: tuple[float, float]

    def removed(self, basis: Float[Tensor, "m j"]) -> float:
        """R: how nearly a knockout takes the mini-bulk's eigenvalues, and nothing else."""
        mine = self.values[self.members]
        if not len(mine):
            return float("nan")
        taken = Taken(self, basis)
        low = float(mine.min()) * (1 - TOUCH)
        worst = 0
        for level in [low, *(float(v) * (1 + TOUCH) for v in self._levels(low))]:
            wanted = int((mine > level).sum())
            worst = max(worst, abs(taken.above(level) - wanted))
        return max(0.0, 1.0 - worst / len(mine))

    def _levels(self, low: float) -> Float[Tensor, " q"]:
        """Where to compare: quantiles of all that lies above, and of the mini-bulk."""
        above, mine = self.values[self.values > low], self.values[self.members]
        at = torch.linspace(0, 1, COMPARED, dtype=torch.float64, device=above.device)
        quantiles = [torch.quantile(v, at, interpolation="nearest") for v in (above, mine)]
        return torch.cat(quantiles).unique()

    def left_there(self, basis: Float[Tensor, "m j"]) -> float:
        """How many eigenvalues of the mini-bulk's stretch a knockout leaves there."""
        low, high = self.stretch
        there = int(((self.values >= low) & (self.values <= high) & self.members).sum())
        below, above = low * (1 - TOUCH), high * (1 + TOUCH)
        taken = Taken(self, basis)
        return float(max(0, there - (taken.above(below) - taken.above(above))))


class Taken:
    """d(x): how many eigenvalues above x subtracting the part with a basis takes away."""

    def __init__(self, located: Located, basis: Float[Tensor, "m j"]) -> None:
        self.values, self.inside = located.values, located.vectors.T @ basis
        self.outside = basis.T @ basis - self.inside.T @ self.inside

    def above(self, level: float) -> int:
        """d(x) for one x."""
        # S − x is −x off the eigenvectors at hand.
        core = self.inside.T @ (self.inside / (self.values - level)[:, None])
        core = core - self.outside / level
        return int((torch.linalg.eigvalsh((core + core.T) / 2) > 0).sum())


def locate(gram: Gram, cross: CrossClass) -> Located:
    """The eigenvalues whose eigenvectors lie mostly in the cross-class part, and where they are."""
    values, vectors = gram.eigenpairs
    above = values > gram.rounding
    values, vectors = values[above], vectors[:, above]
    share, within = cross.shares(vectors), WithinClass(cross.cells).shares(vectors)
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
    return MiniBulk(
        count=len(mine),
        rank=cross.rank,
        stretch=located.stretch,
        quantiles=_quantiles(mine, QUANTILES),
        bulk_quantiles=_quantiles(bulk, QUANTILES),
        decades=decades_between(mine, bulk),
        outside=_outside(mine, bulk),
        left=located.left_there(cross.basis) if len(mine) else 0.0,
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
