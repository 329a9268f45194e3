"""A power law fitted to a density, with its R²."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from deepspec.arguments import is_one_of, shown
from deepspec.krylov._spectral_density import SpectralDensity
from deepspec.krylov.log_density import LogSpectralDensity, Side
from deepspec.storage.display import Result

SIDES: tuple[Side, ...] = ("both", "positive", "negative")


@dataclass(frozen=True, repr=False, kw_only=True)
class PowerLaw(Result):
    """A power law fitted to a density between two magnitudes, with its error.

    φ(λ) ≈ prefactor · |λ|^(−exponent).

    Attributes
    ----------
    exponent, prefactor
        Of the density as it was given: per unit of log λ the exponent is smaller by one than per
        unit of λ.
    r_squared
        The share of the variance of log φ that the line explains.
    exponent_error
        Standard error of the exponent: the larger of what the scatter about the line says (one
        independent point for every 2 σ of the bumps) and what the density's own errors say.
    low, high
        The range of |λ| that was fitted.
    """

    exponent: float
    prefactor: float
    r_squared: float
    exponent_error: float
    low: float
    high: float

    def _words(self) -> list[str]:
        return [
            f"φ ≈ {self.prefactor:.3g} · |λ|^−({self.exponent:.3g} ± {self.exponent_error:.1g})",
            f"R² = {self.r_squared:.3f}",
            f"|λ| from {self.low:.3g} to {self.high:.3g}",
        ]


def fit_power_law(
    density: LogSpectralDensity | SpectralDensity,
    interval: tuple[float, float],
    side: Side = "both",
) -> PowerLaw:
    """Fit a power law to a density by least squares on logarithmic axes.

    Of log φ on log |λ|, over an interval (Papyan 2020, Figure 16).

    Parameters
    ----------
    density
        On log |λ| (there ``density.per`` says which density), or on λ.
    interval
        The least and the largest |λ| to fit.
    side
        ``"both"``, ``"positive"`` or ``"negative"`` eigenvalues.

    Raises
    ------
    ValueError
        If the interval is not 0 < low < high, the side unknown (``"both"`` for a density on λ), or
        fewer than three grid points with a positive density lie in it.

    >>> import torch
    >>> from deepspec.krylov import log_spectral_density
    >>> from deepspec.operators.matrix import MatrixOperator
    >>> spectrum = torch.linspace(0.1, 1, 400, dtype=torch.float64) ** -1.0
    >>> A = MatrixOperator(torch.diag(spectrum))
    >>> density = log_spectral_density(A, 400, probes=10, per="unit")
    >>> round(fit_power_law(density, (1.5, 7.0)).exponent)
    2
    """
    low, high = _interval(interval)
    if not is_one_of(side, SIDES):
        raise ValueError(f"expected side to be one of {', '.join(SIDES)}; got {shown(side)}")
    if not isinstance(density, LogSpectralDensity | SpectralDensity):
        raise TypeError(
            f"expected a density, got {shown(density)}; give what log_spectral_density or "
            "spectral_density returned"
        )
    if isinstance(density, LogSpectralDensity):
        curves = {"both": density.values, "positive": density.positive}
        curves["negative"] = density.negative
        magnitude, extent = density.grid - density.epsilon, density.sigma
        errors = {name: density.standard_error_of(name) for name in SIDES}
    else:
        curves = {"positive": density.values, "negative": density.values.flip(0)}
        turned = side == "negative"
        magnitude = -density.grid.flip(0) if turned else density.grid
        extent = density.sigma / math.sqrt(low * high)
        own = density.standard_error
        errors = {"positive": own, "negative": own.flip(0)}
    if side not in curves:
        raise ValueError(f"expected side to be one of {', '.join(curves)}; got {shown(side)}")
    values = curves[side]
    share = errors[side] / values.clamp_min(1e-300)
    inside = (magnitude >= low) & (magnitude <= high) & (values > 0)
    count = int(inside.sum())
    if count < 3:
        raise ValueError(
            f"expected at least 3 grid points with a positive density in {interval}, got {count}; "
            "widen the interval or draw more points"
        )
    abscissa, ordinate = magnitude[inside].log(), values[inside].log()
    centred = abscissa - abscissa.mean()
    slope = float((centred * ordinate).sum() / centred.square().sum())
    level = float(ordinate.mean() - slope * abscissa.mean())
    residual = ordinate - level - slope * abscissa
    around = float((ordinate - ordinate.mean()).square().sum())
    explained = 1 - float(residual.square().sum()) / around if around else 1.0
    independent = min(count, max(3, int(math.log(high / low) / (2 * extent))))
    scatter = float(residual.square().mean()) * independent / max(independent - 2, 1)
    scattered = scatter / (independent * float(torch.var(abscissa, correction=0)))
    pull = centred * share[inside] / centred.square().sum()
    carried = float(pull.square().sum()) * count / independent
    error = math.sqrt(max(scattered, carried))
    return PowerLaw(
        exponent=-slope,
        prefactor=math.exp(level),
        r_squared=explained,
        exponent_error=error,
        low=low,
        high=high,
    )


def _interval(interval: Any) -> tuple[float, float]:
    """0 < low < high; raises ValueError or TypeError for anything else."""
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"expected an interval (low, high), got {shown(interval)}") from error
    if not 0 < low < high < math.inf:
        raise ValueError(f"expected an interval 0 < low < high, got {shown(interval)}")
    return low, high
