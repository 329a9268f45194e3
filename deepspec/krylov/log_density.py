"""The density of log |λ|: positive and negative eigenvalues apart, over many decades."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import is_one_of, shown
from deepspec.krylov._arguments import check_positive
from deepspec.krylov._bands import Band, curve_band
from deepspec.krylov._lanczos import (
    Reorthogonalize,
)
from deepspec.krylov._runs import probed
from deepspec.krylov._smearing import Curve, Marks, bump_width, cells, check_drawing, draw
from deepspec.krylov.quadrature import OfQuadrature, Quadrature
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed
from deepspec.storage.display import Drawable, Result, Table, Tabular

Side = Literal["both", "positive", "negative"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LogSpectralDensity(OfQuadrature, Result, Tabular, Drawable):
    """The density of eigenvalues on a logarithmic axis, the two signs apart, with error bands.

    That of u = log(|λ| + ε): Papyan (2020), Appendix C.7, with f = log(|λ| + ε).

    Attributes
    ----------
    quadrature
        What the probes saw.
    epsilon
        ε, in units of λ: what is much smaller is drawn at log ε.
    kappa
        The contrast of the bumps; None for a width of 1 % of the range's half.
    points
        How many grid points, evenly spaced in u.
    per
        ``"log"``: values are per unit of log |λ| (natural logarithm), and Σ values · spacing is 1
        over both sides. ``"unit"``: per unit of |λ|, and Σ values · widths is 1. The paper prints
        the factor 1/θ in a density that it calls one of log λ; here it is one or the other.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([-1.0, 1.0, 10.0, 100.0])))
    >>> density = log_spectral_density(A, steps=4)
    >>> round(float((density.positive + density.negative).sum() * density.spacing), 12)
    1.0
    """

    quadrature: Quadrature
    epsilon: float
    kappa: float | None
    points: int
    per: Literal["log", "unit"]

    @cached_property
    def _logarithms(self) -> tuple[Tensor, Tensor, Tensor]:
        """log(|θ| + ε) of every place of mass and of the two ends of its interval."""
        values, _, left, right = self.quadrature.marks
        left = torch.where((left < 0) & (values >= 0), torch.zeros_like(left), left)
        right = torch.where((right > 0) & (values < 0), torch.zeros_like(right), right)
        near, far = torch.minimum(left.abs(), right.abs()), torch.maximum(left.abs(), right.abs())
        places = (values.abs() + self.epsilon).log()
        return places, (near + self.epsilon).log(), (far + self.epsilon).log()

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        """The least and the largest logarithm, with 5 % of margin."""
        places, _, far = self._logarithms
        heavy = self.quadrature.marks[1] > 0
        low, high = float(places[heavy].min()), float(far[heavy].max())
        added = 0.05 * max(high - low, 1.0)
        return low - added, high + added

    @property
    def range(self) -> tuple[float, float]:
        """First and last grid point in u: the extremes and their margin, or 4 σ if more."""
        low, high = self._extremes
        beyond = max(0.0, 4 * self.sigma - 0.05 * (high - low) / 1.1)
        return low - beyond, high + beyond

    @property
    def spacing(self) -> float:
        """Between two grid points, in units of u."""
        low, high = self.range
        return (high - low) / (self.points - 1)

    @property
    def widths(self) -> Float[Tensor, " k"]:
        """Of the grid's cells, in units of λ."""
        half = self.spacing / 2
        return (self.log_grid + half).exp() - (self.log_grid - half).exp()

    @property
    def sigma(self) -> float:
        """The standard deviation of a bump, in units of u."""
        low, high = self._extremes
        share = 0.01 if self.kappa is None else bump_width(self.quadrature.steps, self.kappa)
        return share * (high - low) / 2

    @cached_property
    def log_grid(self) -> Float[Tensor, " k"]:
        """u = log(|λ| + ε)."""
        return cells(*self.range, self.points)[0]

    @property
    def grid(self) -> Float[Tensor, " k"]:
        """|λ| + ε, for a logarithmic axis."""
        return self.log_grid.exp()

    def _side(self, side: Side) -> Curve:
        seen = self.quadrature
        values, weights = seen.marks[:2]
        chosen = {
            "both": torch.ones_like(values, dtype=torch.bool),
            "positive": values >= 0,
            "negative": values < 0,
        }[side]
        masses = torch.where(chosen, weights, torch.zeros_like(weights))
        places, near, far = self._logarithms
        edges = cells(*self.range, self.points)[1]
        exact = seen.eigenvalues is not None
        return draw(Marks(places, masses, near, far), edges, self.sigma, seen.dimension, exact)

    @cached_property
    def _curves(self) -> dict[Side, Curve]:
        return {side: self._side(side) for side in ("both", "positive", "negative")}

    @property
    def _measure(self) -> Tensor:
        return self.widths if self.per == "unit" else torch.full_like(self.log_grid, self.spacing)

    @property
    def values(self) -> Float[Tensor, " k"]:
        """The density of |λ|, both signs together."""
        return self._curves["both"].masses / self._measure

    @property
    def positive(self) -> Float[Tensor, " k"]:
        """The part of the density that is from λ ≥ 0; its mass is their share."""
        return self._curves["positive"].masses / self._measure

    @property
    def negative(self) -> Float[Tensor, " k"]:
        """The part of the density that is from λ < 0."""
        return self._curves["negative"].masses / self._measure

    @property
    def standard_error(self) -> Float[Tensor, " k"]:
        """Of :attr:`values`, as in :attr:`SpectralDensity.standard_error`."""
        return self.standard_error_of("both")

    @property
    def quadrature_error(self) -> Float[Tensor, " k"]:
        """Of :attr:`values`, as in :attr:`SpectralDensity.quadrature_error`."""
        return self.quadrature_error_of("both")

    def standard_error_of(self, side: Side) -> Float[Tensor, " k"]:
        """Of the density on one side."""
        return self._curves[self._known(side)].standard_error / self._measure

    def quadrature_error_of(self, side: Side) -> Float[Tensor, " k"]:
        """Of the density on one side."""
        return self._curves[self._known(side)].quadrature_error / self._measure

    def band(self, level: float = 0.95, side: Side = "both") -> Band:
        """Lower and upper limit, as in :meth:`SpectralDensity.band`, of the density on one side."""
        lower, upper = curve_band(self.quadrature, self._curves[self._known(side)], level)
        return lower / self._measure, upper / self._measure

    def cumulative(self, points: Float[Tensor, " k"] | None = None) -> Float[Tensor, " k"]:
        """The share of eigenvalues of magnitude at most each point (by default the grid's)."""
        points = self.grid if points is None else points
        below = torch.nextafter(-points, torch.full_like(points, -torch.inf))
        return self.quadrature.cumulative(points) - self.quadrature.cumulative(below)

    @staticmethod
    def _known(side: Side) -> Side:
        if side not in ("both", "positive", "negative"):
            raise ValueError(f'expected side "both", "positive" or "negative", got {shown(side)}')
        return side

    def redraw(
        self,
        kappa: float | None = None,
        points: int | None = None,
        epsilon: float | None = None,
        per: Literal["log", "unit"] | None = None,
    ) -> LogSpectralDensity:
        """The same run with other bumps, another grid, ε or unit; no product is taken.

        Raises
        ------
        ValueError
            If one of them cannot be right.
        """
        epsilon = self.epsilon if epsilon is None else epsilon
        kappa = self.kappa if kappa is None else kappa
        points = self.points if points is None else points
        per = self.per if per is None else per
        _check(epsilon, kappa, points, per)
        return replace(self, epsilon=epsilon, kappa=kappa, points=points, per=per)

    def _words(self) -> list[str]:
        low, high = float(self.grid[0]), float(self.grid[-1])
        return [
            self._run_in_words(),
            f"|λ| + ε from {low:.2g} to {high:.2g}, ε = {self.epsilon:g}",
            "per unit of log |λ|" if self.per == "log" else "per unit of |λ|",
            f"{self.matvecs:,} matvecs",
        ]

    def _table(self) -> Table:
        lower, upper = self.band()
        return {
            "magnitude": self.grid,
            "density": self.values,
            "positive": self.positive,
            "negative": self.negative,
            "standard_error": self.standard_error,
            "lower": lower,
            "upper": upper,
        }


def _check(epsilon: float, kappa: float | None, points: int, per: str) -> None:
    check_drawing(kappa, points)
    check_positive(epsilon, "epsilon, the floor of log |λ|,")
    if not is_one_of(per, ("log", "unit")):
        raise ValueError(f'expected per="log" or per="unit", got {shown(per)}')


def log_spectral_density(
    A: SymmetricOperator,
    steps: int = 2048,
    probes: int = 1,
    *,
    reorthogonalize: Reorthogonalize = "none",
    epsilon: float = 1e-5,
    kappa: float | None = None,
    points: int = 1024,
    per: Literal["log", "unit"] = "log",
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> LogSpectralDensity:
    """Estimate the density of eigenvalues over many decades, on a logarithmic axis (SLQ).

    That of log(|λ| + ε), by ``steps · probes`` products (Papyan 2020, Appendix C.7).
    The run is that of :func:`spectral_density`; only the axis on which its Ritz values are drawn
    is another. Lanczos finds the ends of the spectrum first and what is smallest in magnitude
    last: below about ‖A‖ (π/2M)² for eigenvalues ≥ 0, M the number of steps, the picture is the
    quadrature's, and :attr:`LogSpectralDensity.quadrature_error` says so.

    Parameters
    ----------
    A
        The operator.
    steps, probes
        M and the number of directions. Runs of many more steps than distinct eigenvalues bring
        ghosts, whose weights are right together.
    epsilon, kappa, points, per
        See :class:`LogSpectralDensity`.
    reorthogonalize, seed, checkpoint, checkpoint_every
        As in :func:`spectral_density`.

    Raises
    ------
    ValueError
        If ``steps`` or ``probes`` is below 1, ε not positive, κ not above 1, ``per`` unknown, or
        there are fewer than 2 points.
    FloatingPointError
        If a product is not finite.
    CheckpointMismatch
        If the checkpoint is of another operator or configuration.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)))
    >>> density = log_spectral_density(A, steps=4, probes=100)
    >>> round(float(density.positive.sum() * density.spacing), 1)
    0.5
    """
    _check(epsilon, kappa, points, per)
    seen = probed(A, steps, probes, reorthogonalize, seed, checkpoint, checkpoint_every)
    return LogSpectralDensity(quadrature=seen, epsilon=epsilon, kappa=kappa, points=points, per=per)
