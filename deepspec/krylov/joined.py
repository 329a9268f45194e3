"""Exact eigenpairs joined to a density of the rest, with masses that add up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import as_path, check_whole
from deepspec.krylov._arguments import check_operator
from deepspec.krylov._lanczos import Reorthogonalize
from deepspec.krylov._probes import dimension
from deepspec.krylov._results import Eigenpairs
from deepspec.krylov._spectral_density import SpectralDensity
from deepspec.krylov.density import spectral_density
from deepspec.krylov.eigenpairs import top_eigenpairs
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.display import Drawable, Result, Table, Tabular


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class JoinedSpectrum(Result, Tabular, Drawable):
    """The largest eigenvalues exactly, and a density of all the others.

    k eigenvalues of mass 1/p each, and a density of mass 1 − k/p (Papyan 2020, Appendix C.8).

    Attributes
    ----------
    pairs
        What was deflated.
    rest
        The density of A.deflate(pairs): of mass 1 by itself, of mass 1 − k/p here.

    >>> import torch
    >>> from deepspec.operators import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.arange(10.0, dtype=torch.float64)))
    >>> joined_spectrum(A, k=2, steps=5).pair_mass
    0.2
    """

    pairs: Eigenpairs
    rest: SpectralDensity

    @property
    def pair_mass(self) -> float:
        """k/p."""
        count = self.pairs.values.shape[0]
        return count / (count + self.rest.quadrature.dimension)

    @property
    def rest_mass(self) -> float:
        """1 − k/p."""
        return 1.0 - self.pair_mass

    @property
    def grid(self) -> Float[Tensor, " k"]:
        """Where :attr:`values` are; the pairs are at ``pairs.values``."""
        return self.rest.grid

    @property
    def values(self) -> Float[Tensor, " k"]:
        """The rest's share of the density of A, per unit of λ."""
        return self.rest_mass * self.rest.values

    @property
    def standard_error(self) -> Float[Tensor, " k"]:
        """Of :attr:`values`."""
        return self.rest_mass * self.rest.standard_error

    def band(self, level: float = 0.95) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
        """As :meth:`SpectralDensity.band`, with the rest's mass."""
        lower, upper = self.rest.band(level)
        return self.rest_mass * lower, self.rest_mass * upper

    def cumulative(self, points: Float[Tensor, " k"] | None = None) -> Float[Tensor, " k"]:
        """The share of A's eigenvalues at or below each point (by default the grid's)."""
        points = self.grid if points is None else points
        exact = self.pairs.values.detach().cpu().to(points.dtype)
        below = (exact <= points[:, None]).to(points.dtype).mean(dim=1)
        return self.pair_mass * below + self.rest_mass * self.rest.cumulative(points)

    @property
    def matvecs(self) -> int:
        """What the pairs and the rest took together."""
        return self.pairs.matvecs + self.rest.matvecs

    def _words(self) -> list[str]:
        values, low, high = self.pairs.values, self.rest.quadrature.low, self.rest.quadrature.high
        return [
            f"{len(values)} exact from {float(values[0]):.4g} down to {float(values[-1]):.4g}",
            f"{self.rest.quadrature.dimension:,} more as a density in [{low:.4g}, {high:.4g}]",
            f"{self.matvecs:,} matvecs",
        ]

    def _table(self) -> Table:
        lower, upper = self.band()
        return {"eigenvalue": self.grid, "density": self.values, "lower": lower, "upper": upper}


def joined_spectrum(
    A: SymmetricOperator,
    k: int = 10,
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
) -> JoinedSpectrum:
    """Find the largest eigenvalues of an operator exactly, and the density of the rest (SLQ).

    LowRankDeflation (Papyan 2020, Appendix C.8): the density's resolution, which is its range over
    the number of steps, is then not spent on the gap between bulk and outliers.

    Parameters
    ----------
    k
        As in :func:`top_eigenpairs`, but below the number of eigenvalues.
    seed, checkpoint, checkpoint_every
        As in :func:`top_eigenpairs`, for both runs, which have a checkpoint each, in the folders
        ``pairs`` and ``rest`` of one.
    steps, probes, reorthogonalize, kappa, points, margin
        As in :func:`spectral_density`.

    Raises
    ------
    ValueError
        If ``k`` pairs would leave nothing for a density.

    >>> import torch
    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([9.0, 2.0, 1.0, 0.0], dtype=torch.float64)))
    >>> whole = joined_spectrum(A, k=1)
    >>> whole.pair_mass, bool(whole.rest.ritz_values.max() < 3)
    (0.25, True)
    """
    check_operator(A)
    check_whole(k, 1, "k")
    if k >= dimension(A):
        raise ValueError(
            f"expected k below {dimension(A)}, the number of eigenvalues, so that there is a rest "
            f"to draw; got k={k}: ask for fewer, or top_eigenpairs for them all"
        )
    seed = whole_seed(seed)
    folder = None if checkpoint is None else as_path(checkpoint, "checkpoint")
    pairs = top_eigenpairs(
        A,
        k,
        seed=seed,
        checkpoint=None if folder is None else folder / "pairs",
        checkpoint_every=checkpoint_every,
    )
    rest = spectral_density(
        A.deflate(pairs),
        steps,
        probes,
        seed=seed,
        checkpoint=None if folder is None else folder / "rest",
        checkpoint_every=checkpoint_every,
        reorthogonalize=reorthogonalize,
        kappa=kappa,
        points=points,
        margin=margin,
    )
    return JoinedSpectrum(pairs=pairs, rest=rest)
