"""Masses drawn as a density: Gaussian bumps averaged over the cells of a grid, and their error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_above, check_whole


@dataclass(frozen=True, eq=False)
class Marks:
    """Masses at places on an axis, one row per probe, each spread over an interval."""

    places: Float[Tensor, "n m"]
    masses: Float[Tensor, "n m"]
    left: Float[Tensor, "n m"]
    right: Float[Tensor, "n m"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean mass in each cell, with its standard error and the quadrature's.

    ``peak`` is what a cell holds of the bumps that matter there: Σ w f² / Σ w f. As if the mass
    were that of a share mass/peak of the eigenvalues, each in the cell to that degree.
    """

    masses: Float[Tensor, " k"]
    peak: Float[Tensor, " k"]
    standard_error: Float[Tensor, " k"]
    quadrature_error: Float[Tensor, " k"]


def bump_width(steps: int, kappa: float) -> float:
    """σ = 2 / ((M − 1) √(8 ln κ)) on an axis of length 2 (Papyan 2020, Algorithm 3).

    >>> round(bump_width(128, 3.0), 6)
    0.005312
    """
    return 2 / (max(steps - 1, 1) * math.sqrt(8 * math.log(kappa)))


def check_drawing(kappa: float | None, points: int) -> None:
    """Raise ValueError for a κ or a number of points that draws nothing."""
    if kappa is not None:
        check_above(kappa, 1, "kappa")
    check_whole(points, 2, "points")


def cells(low: float, high: float, points: int) -> tuple[Tensor, Tensor]:
    """Evenly spaced points, and the edges half-way between them; the outer ones are infinite."""
    grid = torch.linspace(low, high, points, dtype=torch.float64)
    middle = (grid[1:] + grid[:-1]) / 2
    infinity = torch.full((1,), torch.inf, dtype=torch.float64)
    return grid, torch.cat([-infinity, middle, infinity])


def draw(
    marks: Marks, edges: Float[Tensor, " k+1"], sigma: float, dimension: int, exact: bool = False
) -> Curve:
    """The mean over probes of Σ_j w_j ∫_cell g_σ(t − θ_j) dt, and how far it may be off.

    For v uniform on the sphere of R^p and a function f of A,
    Var vᵀf(A)v = 2/(p + 2) (⟨f²⟩ − ⟨f⟩²), ⟨·⟩ the mean over eigenvalues: with ⟨f²⟩ from the same
    quadrature one probe is enough for a standard error, and few give a steady one. The error of
    the quadrature is what remains of the bumps' own ripple: the difference between bumps at the
    Ritz values and the same bumps spread over the Ritz values' intervals, root mean square over
    one and a half spacings to each side. Masses that are ``exact`` have neither error.
    """
    probes, columns = marks.places.shape
    count = edges.shape[0] - 1
    mean, square = edges.new_zeros(count), edges.new_zeros(count)
    ripple = edges.new_zeros(count)
    for row in range(probes):
        masses = marks.masses[row]
        bumps = torch.special.ndtr((edges[:, None] - marks.places[row]) / sigma).diff(dim=0)
        drawn = bumps @ masses
        mean += drawn / probes
        square += bumps.square() @ masses / probes
        spread = _spread(edges, marks.left[row], marks.right[row], sigma).diff(dim=0)
        ripple += (drawn - spread @ masses) / probes
    peak = torch.where(mean > 0, square / mean.clamp_min(1e-300), torch.ones_like(mean))
    if exact:
        return Curve(mean, peak, torch.zeros_like(mean), torch.zeros_like(mean))
    variance = (square - mean.square()).clamp_min(0) * 2 / (dimension + 2) / probes
    reach = min(math.ceil(1.5 * count / columns), (count - 1) // 2)
    window = torch.full((1, 1, 2 * reach + 1), 1 / (2 * reach + 1), dtype=torch.float64)
    smooth = torch.nn.functional.conv1d(ripple.square()[None, None], window, padding=reach)
    return Curve(mean, peak, variance.sqrt(), smooth[0, 0].sqrt())


def _spread(edges: Tensor, left: Tensor, right: Tensor, sigma: float) -> Tensor:
    """The mass below each edge of a unit mass spread over [left, right] and smeared by σ."""
    width = right - left
    narrow = width < 1e-3 * sigma
    safe = torch.where(narrow, torch.ones_like(width), width)

    def integral(places: Tensor) -> Tensor:
        scaled = ((edges[:, None] - places) / sigma).clamp(-1e6, 1e6)
        bell = torch.exp(-scaled.square() / 2) / math.sqrt(2 * math.pi)
        return sigma * (scaled * torch.special.ndtr(scaled) + bell)

    wide = ((integral(left) - integral(right)) / safe).clamp(0, 1)
    wide[0], wide[-1] = 0.0, 1.0
    point = torch.special.ndtr((edges[:, None] - (left + right) / 2) / sigma)
    return torch.where(narrow, point, wide)
