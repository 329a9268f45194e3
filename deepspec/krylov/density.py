"""The spectral density and the cumulative distribution of eigenvalues, with error bars."""

from __future__ import annotations

from pathlib import Path

from deepspec.krylov._lanczos import (
    Reorthogonalize,
)
from deepspec.krylov._runs import probed
from deepspec.krylov._spectral_density import SpectralDensity, check_smearing
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed


def spectral_density(
    A: SymmetricOperator,
    steps: int = 128,
    probes: int = 1,
    *,
    reorthogonalize: Reorthogonalize = "none",
    kappa: float = 3.0,
    points: int = 1024,
    margin: float = 0.05,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> SpectralDensity:
    """Estimate the density of an operator's eigenvalues by stochastic Lanczos quadrature (SLQ).

    Of total mass 1, by ``steps · probes`` products:
    φ(t) = (1/n) Σ_l Σ_m w_{l,m} g_σ(t − θ_{l,m}) (Papyan 2020, Algorithm 3): Gaussian bumps at
    the Ritz values of FastLanczos runs from n random directions, with the papers' defaults. Their
    Normalization (Algorithm 4) is taken from the first 32 steps of the first run, at no cost.
    What a :class:`~deepspec.operators.Compression` removed is left out: its probes stay off
    it, and the density is that of the eigenvalues that remain.

    In float32 the Ritz values carry the rounding of the products, about ε‖A‖ each: on the same
    operator in float32 and float64 the two densities agree within the reported band unless a
    bump is narrower than that, that is unless ``steps`` is above 10⁵ or so.

    Parameters
    ----------
    A
        The operator.
    steps, probes
        M and n_vec.
    kappa, points, margin
        κ, K and τ of the paper.
    reorthogonalize
        ``"full"`` is SlowLanczos: no ghosts, and with as many steps as there are dimensions
        every eigenvalue, so that the cumulative distribution is exact; M vectors of length p.
    seed
        Where the directions come from: a whole number, or a ``torch.Generator`` that gives one.
        Drawn on the CPU in float64, so the same on every device.
    checkpoint, checkpoint_every
        As in :func:`deepspec.krylov.lanczos`. It is the run that is saved, not how it is drawn:
        :func:`log_spectral_density` with the same steps, probes and seed goes on from it too.

    Raises
    ------
    ValueError
        If ``steps`` or ``probes`` is below 1, κ not above 1, or there are fewer than 2 points.
    FloatingPointError
        If a product is not finite.
    CheckpointMismatch
        If the checkpoint is of another operator or configuration.

    >>> import torch
    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([0.0, 1.0, 2.0, 9.0], dtype=torch.float64)))
    >>> density = spectral_density(A, steps=4, probes=2)
    >>> density.ritz_values[0].round(decimals=9).abs()
    tensor([0., 1., 2., 9.], dtype=torch.float64)
    """
    check_smearing(kappa, points, margin)
    seen = probed(A, steps, probes, reorthogonalize, seed, checkpoint, checkpoint_every)
    return SpectralDensity(quadrature=seen, kappa=kappa, points=points, margin=margin)
