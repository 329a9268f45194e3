"""Stochastic Lanczos quadrature (SLQ): for each random probe a Gauss quadrature of the spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepspec.storage.display import Result


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Quadrature(Result):
    """Ritz values, weights and residual bounds of n probes, uniform on the unit sphere.

    Attributes
    ----------
    ritz_values, ritz_weights, residual_bounds
        One row per probe, Ritz values ascending. Weights of a row sum to 1; a run that ended
        early, in an invariant subspace, is filled up with weight 0.
    lengths
        How many Ritz values of each row are the run's own.
    steps
        How many were asked for.
    dimension
        How many eigenvalues there are.
    low, high
        The range of the spectrum by Normalization (Papyan 2020, Algorithm 4, without its margin):
        the extreme Ritz values of 32 steps, widened by their residual bounds and by whatever later
        Ritz values lie beyond.
    epsilon
        The machine precision of the products.
    matvecs
        What it cost.
    reorthogonalized
        Whether the runs were SlowLanczos: then there are no ghosts.
    """

    ritz_values: Float[Tensor, "n m"]
    ritz_weights: Float[Tensor, "n m"]
    residual_bounds: Float[Tensor, "n m"]
    lengths: Int[Tensor, " n"]
    steps: int
    dimension: int
    low: float
    high: float
    epsilon: float
    matvecs: int
    reorthogonalized: bool = False

    @cached_property
    def intervals(self) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
        """Where each Ritz value's mass is: θ ± its residual bound, cut half-way to the next."""
        middle = (self.ritz_values[:, 1:] + self.ritz_values[:, :-1]) / 2
        endless = torch.full_like(self.ritz_values[:, :1], torch.inf)
        left = torch.maximum(
            self.ritz_values - self.residual_bounds, torch.cat([-endless, middle], dim=1)
        )
        right = torch.minimum(
            self.ritz_values + self.residual_bounds, torch.cat([middle, endless], dim=1)
        )
        return left, right

    @property
    def converged(self) -> Bool[Tensor, "n m"]:
        """Ritz values that are eigenvalues to a millionth of the range."""
        return self.residual_bounds <= 1e-6 * max(self.high - self.low, self._smallest)

    @property
    def _smallest(self) -> float:
        return self.epsilon * max(abs(self.low), abs(self.high))

    @cached_property
    def ghosts(self) -> Bool[Tensor, "n m"]:
        """Copies that an exact run could not have (Papyan 2020, Appendix C.5).

        One start vector sees each eigenvalue once, however often it is repeated in A, and its
        whole weight with it. So beside a converged Ritz value there is a ghost where another is
        as close as rounding (10 √m ε ‖A‖) and no heavier, or is within its own residual bound
        and lighter by √ε: a copy in the making. Their weights belong to the one that is left.
        """
        flagged = torch.zeros_like(self.ritz_values, dtype=torch.bool)
        if self.reorthogonalized:
            return flagged
        count = self.ritz_values.shape[1]
        close = 10 * count**0.5 * max(self._smallest, 1e-300)
        later = torch.ones(count, count, dtype=torch.bool).tril(-1)
        for row in range(self.ritz_values.shape[0]):
            values, weights = self.ritz_values[row], self.ritz_weights[row]
            bounds = self.residual_bounds[row]
            apart = (values[:, None] - values).abs()
            lighter = (weights[:, None] < weights) | ((weights[:, None] == weights) & later)
            copy = (apart <= close) & lighter
            faint = weights[:, None] <= self.epsilon**0.5 * weights
            copy |= (apart <= bounds[:, None] + close) & faint
            own = torch.arange(count) < self.lengths[row]
            flagged[row] = (copy & (bounds <= close) & own).any(dim=1) & own
        return flagged

    @cached_property
    def eigenvalues(self) -> Float[Tensor, " p"] | None:
        """Every eigenvalue of A, ascending, where one run found as many as there are; else None.

        A run that shows as many distinct converged Ritz values, ghosts aside, as A has
        dimensions has seen the whole spectrum: each has the mass 1/p, whatever its weight in the
        start vector. A reorthogonalised run of as many steps always does, repeated ones too.
        """
        sharp = 10 * self.ritz_values.shape[1] ** 0.5 * self._smallest
        for row in range(self.ritz_values.shape[0]):
            own = ~self.ghosts[row] & (torch.arange(self.ritz_values.shape[1]) < self.lengths[row])
            if int(own.sum()) == self.dimension and bool(
                (self.residual_bounds[row][own] <= sharp).all()
            ):
                return self.ritz_values[row][own]
        return None

    @property
    def marks(self) -> tuple[Float[Tensor, "n m"], ...]:
        """Places, masses, left and right ends: what a density is drawn from.

        The masses are the weights that the probes saw, unless :attr:`eigenvalues` is known.
        """
        if self.eigenvalues is None:
            return self.ritz_values, self.ritz_weights, *self.intervals
        exact = self.eigenvalues[None]
        return exact, torch.full_like(exact, 1 / self.dimension), exact, exact

    def cumulative(self, points: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The share of eigenvalues at or below each point.

        The mass of a Ritz value is spread evenly over its interval (:attr:`intervals`): a step
        at a converged one, a slope between others. Exact where :attr:`eigenvalues` is known.
        """
        if self.eigenvalues is not None:
            below = torch.searchsorted(self.eigenvalues, points.contiguous(), right=True)
            return below.to(points.dtype) / self.dimension
        left, right = self.intervals
        total = torch.zeros_like(points)
        for row in range(left.shape[0]):
            width = right[row] - left[row]
            share = (points[:, None] - left[row]) / width.clamp_min(1e-300)
            share = torch.where(width > 0, share.clamp(0, 1), (share >= 0).to(share))
            total += share @ self.ritz_weights[row]
        return (total / left.shape[0]).clamp(0, 1)

    def brackets(
        self, points: Float[Tensor, " k"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """Between what the probes' own mass at or below each point must lie.

        The inequalities of Chebyshev, Markov and Stieltjes (Szegő, Orthogonal Polynomials,
        Theorem 3.41.1): up to a node, at least the weights before it and at most with its own.
        What a converged node weighs is in no doubt. Where :attr:`eigenvalues` is known, both are
        :meth:`cumulative`.
        """
        if self.eigenvalues is not None:
            return self.cumulative(points), self.cumulative(points)
        rows, columns = self.ritz_values.shape
        lower, upper = torch.zeros_like(points), torch.zeros_like(points)
        for row in range(rows):
            weights = self.ritz_weights[row]
            summed = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
            doubtful = torch.where(self.converged[row], torch.zeros_like(weights), weights)
            doubtful = torch.cat([doubtful.new_zeros(1), doubtful, doubtful.new_zeros(1)])
            before = torch.searchsorted(self.ritz_values[row].contiguous(), points, right=True)
            lower += summed[before] - doubtful[before]
            upper += summed[before] + doubtful[(before + 1).clamp_max(columns + 1)]
        return (lower / rows).clamp(0, 1), (upper / rows).clamp(0, 1)

    def _words(self) -> list[str]:
        return [
            f"{self.steps} steps",
            f"{len(self.ritz_values)} probe{'s' if len(self.ritz_values) > 1 else ''}",
            f"λ in [{self.low:.4g}, {self.high:.4g}]",
            f"{self.dimension:,} eigenvalues",
            f"{self.matvecs:,} matvecs",
        ]


class OfQuadrature:
    """Gives a density what it shares with the others: the run that it was drawn from."""

    quadrature: Quadrature

    @property
    def matvecs(self) -> int:
        """How many products the run took."""
        return self.quadrature.matvecs

    @property
    def ritz_values(self) -> Float[Tensor, "n m"]:
        """One row for each probe, ascending."""
        return self.quadrature.ritz_values

    @property
    def ritz_weights(self) -> Float[Tensor, "n m"]:
        """The mass of each Ritz value, 1 in a row."""
        return self.quadrature.ritz_weights

    def _run_in_words(self) -> str:
        probes = len(self.ritz_values)
        return f"{self.quadrature.steps} steps × {probes} probe{'s' if probes > 1 else ''}"
