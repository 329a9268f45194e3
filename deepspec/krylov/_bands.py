"""Confidence limits of what random probes saw: a uniform direction's mass has a Beta law."""

from __future__ import annotations

import scipy.special
import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov._smearing import Curve
from deepspec.krylov.quadrature import Quadrature

Band = tuple[Float[Tensor, " k"], Float[Tensor, " k"]]


def quantile(level: float) -> float:
    """The normal quantile of a two-sided level.

    >>> round(quantile(0.95), 2)
    1.96

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"expected a level between 0 and 1, such as 0.95; got {level}")
    return float(scipy.special.ndtri((1 + level) / 2))


def mass_limit(
    seen: Quadrature, share: Float[Tensor, " k"], level: float, side: int
) -> Float[Tensor, " k"]:
    """F such that a mass beyond ``share`` has probability (1 − level)/2, by bisection.

    For uniform directions a probe's mass on a share F of the eigenvalues is
    Beta(pF/2, p(1 − F)/2). Where every eigenvalue is known the share is the truth.
    """
    quantile(level)
    if seen.eigenvalues is not None:
        return share
    freedom = seen.dimension * seen.ritz_values.shape[0] / 2
    tail = (1 - level) / 2 if side < 0 else (1 + level) / 2
    share = share.clamp(0, 1)
    weighed = share.numpy()
    low, high = torch.zeros_like(share), torch.ones_like(share)
    for _ in range(50):
        middle = (low + high) / 2
        a = (freedom * middle).clamp_min(1e-12).numpy()
        b = (freedom * (1 - middle)).clamp_min(1e-12).numpy()
        below = torch.from_numpy(scipy.special.betainc(a, b, weighed))
        low = torch.where(below > tail, middle, low)
        high = torch.where(below > tail, high, middle)
    certain = (share <= 0) | (share >= 1)
    return torch.where(certain, share, (low + high) / 2)


def curve_band(seen: Quadrature, curve: Curve, level: float) -> Band:
    """Limits for the masses of a curve.

    Two errors, added in squares: that of the probes, by the law above for the eigenvalues under a
    bump, and the normal quantile times the quadrature's error.
    """
    share = curve.masses / curve.peak
    drawn = quantile(level) * curve.quadrature_error
    down = (share - mass_limit(seen, share, level, 1)) * curve.peak
    up = (mass_limit(seen, share, level, -1) - share) * curve.peak
    lower = curve.masses - torch.hypot(down, drawn)
    return lower.clamp_min(0), curve.masses + torch.hypot(up, drawn)
