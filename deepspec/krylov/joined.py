"""Exact eigenpairs joined to a density of the rest, with masses that add up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov._arguments import check_operator, check_whole
from deepspec.krylov._probes import dimension, resolve_seed
from deepspec.krylov._results import Eigenpairs
from deepspec.krylov._spectral_density import SpectralDensity
from deepspec.krylov.density import spectral_density
from deepspec.krylov.eigenpairs import top_eigenpairs
from deepspec.operators.base import SymmetricOperator
from deepspec.storage.checkpoint import load_state, save_state


@dataclass(frozen=True, eq=False)
class JoinedSpectrum:
    """k exact eigenvalues of mass 1/p each, and a density of the other p − k ([002], C.8).

    Attributes
    ----------
    pairs
        What was deflated.
    rest
        The density of A.deflate(pairs): of mass 1 by itself, of mass 1 − k/p here.
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

    def cumulative(self, points: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The share of A's eigenvalues at or below each point."""
        exact = self.pairs.values.detach().cpu().to(points.dtype)
        below = (exact <= points[:, None]).to(points.dtype).mean(dim=1)
        return self.pair_mass * below + self.rest_mass * self.rest.quadrature.cumulative(points)

    def save(self, folder: str | Path) -> None:
        """Write both parts into a folder."""
        self.pairs.save(Path(folder) / "pairs")
        self.rest.save(Path(folder) / "rest")
        save_state(Path(folder), {"kind": "joined spectrum"}, {"grid": self.grid})

    @classmethod
    def load(cls, folder: str | Path) -> JoinedSpectrum:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the folder holds something else.
        """
        kind = load_state(Path(folder))[0].get("kind")
        if kind != "joined spectrum":
            raise ValueError(f"expected a saved joined spectrum in {folder}, found {kind}")
        return cls(
            Eigenpairs.load(Path(folder) / "pairs"), SpectralDensity.load(Path(folder) / "rest")
        )


def joined_spectrum(
    A: SymmetricOperator,
    k: int = 10,
    steps: int = 128,
    probes: int = 1,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    **drawing: Any,
) -> JoinedSpectrum:
    """The k largest eigenpairs of A, and the density of what remains when they are deflated.

    LowRankDeflation ([002], Appendix C.8): the density's resolution, which is its range over the
    number of steps, is then not spent on the gap between bulk and outliers.

    Parameters
    ----------
    k
        As in :func:`top_eigenpairs`, but below the number of eigenvalues.
    seed, generator, checkpoint, checkpoint_every
        As in :func:`top_eigenpairs`, for both runs, which have a checkpoint each, in the folders
        ``pairs`` and ``rest`` of one.
    steps, probes, drawing
        As in :func:`spectral_density`.

    Raises
    ------
    ValueError
        If ``k`` pairs would leave nothing for a density.

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
    seed = resolve_seed(seed, generator)
    folder = None if checkpoint is None else Path(checkpoint)
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
        **drawing,
    )
    return JoinedSpectrum(pairs, rest)
