"""The kernel polynomial method: the density as a damped Chebyshev series, for comparison."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.checkpoint import load_state, save_state
from deepspec.krylov._arguments import check_operator, check_positive, check_whole
from deepspec.krylov._drawing import cells, check_drawing
from deepspec.krylov._inner import inner, subtract_then_inner
from deepspec.krylov._probes import resolve_seed, unit_probe
from deepspec.krylov._progress import progress
from deepspec.krylov.density import SpectralDensity
from deepspec.krylov.quadrature import run_probes
from deepspec.operators.base import SymmetricOperator


@dataclass(frozen=True, eq=False)
class KernelPolynomialDensity:
    """Chebyshev moments μ_m = vᵀT_m(B)v of each probe, and the density they give.

    B is A with its range brought to [−1, 1]. With Jackson's factors the density is nowhere
    negative and a point is drawn π/m wide, m the number of moments.

    Attributes
    ----------
    moments
        One row per probe; the first of each is 1.
    low, high
        The ends of the range.
    points
        How many grid points.
    products
        What it cost, the 32 for the range included.
    """

    moments: Float[Tensor, "n m"]
    low: float
    high: float
    points: int
    products: int

    @property
    def spacing(self) -> float:
        """Between two grid points, in units of λ."""
        return (self.high - self.low) / (self.points - 1)

    @property
    def grid(self) -> Float[Tensor, " k"]:
        """Points on the λ axis."""
        return cells(self.low, self.high, self.points)[0]

    def cumulative(self, points: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """The share of eigenvalues at or below each point."""
        return self._below(points).mean(0)

    def _below(self, points: Tensor) -> Tensor:
        """∫ of the series from −1 to x = cos φ: 1 − φ/π − (2/π) Σ g_m μ_m sin(mφ)/m."""
        centred = (2 * points - self.low - self.high) / (self.high - self.low)
        angle = torch.arccos(centred.clamp(-1, 1))
        orders = torch.arange(1, self.moments.shape[1], dtype=torch.float64)
        waves = torch.sin(angle[:, None] * orders) / orders
        damped = self.moments[:, 1:] * jackson(self.moments.shape[1])[1:]
        return 1 - angle / math.pi - 2 / math.pi * damped @ waves.T

    @cached_property
    def _cells(self) -> Tensor:
        edges = cells(self.low, self.high, self.points)[1]
        return self._below(edges).diff(dim=1) / self.spacing

    @property
    def values(self) -> Float[Tensor, " k"]:
        """The density per unit of λ, averaged over each cell: Σ values · spacing is 1."""
        return self._cells.mean(0)

    @property
    def standard_error(self) -> Float[Tensor, " k"]:
        """Of :attr:`values`, from the spread over probes; NaN for a single one."""
        probes = self.moments.shape[0]
        if probes == 1:
            return torch.full_like(self.values, torch.nan)
        return self._cells.std(0) / math.sqrt(probes)

    def save(self, folder: str | Path) -> None:
        """Write a JSON manifest and the arrays (safetensors) into a folder."""
        numbers = {n: getattr(self, n) for n in ("low", "high", "points", "products")}
        curves = {"grid": self.grid, "values": self.values, "moments": self.moments}
        save_state(Path(folder), {"kind": "kernel polynomial density", **numbers}, curves)

    @classmethod
    def load(cls, folder: str | Path) -> KernelPolynomialDensity:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the folder holds something else.
        """
        manifest, arrays = load_state(Path(folder))
        if manifest.get("kind") != "kernel polynomial density":
            raise ValueError(
                f"expected a saved kernel polynomial density in {folder}, "
                f"found {manifest.get('kind')}"
            )
        names = ("low", "high", "points", "products")
        return cls(arrays["moments"], *(manifest[n] for n in names))


def jackson(count: int) -> Float[Tensor, " m"]:
    """Jackson's damping factors (Weiße, Wellein, Alvermann and Fehske, 2006, eq. 71).

    >>> jackson(1)
    tensor([1.], dtype=torch.float64)
    """
    order = torch.arange(count, dtype=torch.float64)
    step = math.pi / (count + 1)
    cosine = (count - order + 1) * torch.cos(step * order)
    return (cosine + torch.sin(step * order) / math.tan(step)) / (count + 1)


def kernel_polynomial_density(
    A: SymmetricOperator,
    steps: int = 128,
    probes: int = 1,
    *,
    points: int = 1024,
    margin: float = 0.05,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> KernelPolynomialDensity:
    """The density of A's eigenvalues from 2 · ``steps`` Chebyshev moments of each probe.

    t_{m+1} = 2 B t_m − t_{m−1}, μ_{2m} = 2⟨t_m, t_m⟩ − μ_0, μ_{2m+1} = 2⟨t_{m+1}, t_m⟩ − μ_1
    (Lin, Saad and Yang, 2016, section 3.1): two moments a product. The papers tried it beside
    Lanczos and found it temperamental: an eigenvalue outside the assumed range makes the
    recurrence grow without bound. That is noticed here and is an error.

    Parameters
    ----------
    steps
        Products per probe, after 32 for the range (Normalization, [002], Algorithm 4).
    probes, points, margin, seed, generator
        As in :func:`deepspec.spectral_density`.

    Raises
    ------
    ValueError
        If ``steps`` or ``probes`` is below 1, or the grid cannot be drawn.
    ArithmeticError
        If an eigenvalue lies outside the range that 32 steps suggested.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([0.0, 1.0])))
    >>> density = kernel_polynomial_density(A, steps=8)
    >>> round(float(density.values.sum() * density.spacing), 12)
    1.0
    """
    check_operator(A)
    check_whole(steps, 1, "steps")
    check_whole(probes, 1, "probes")
    check_drawing(None, points)
    check_positive(margin, "margin")
    chosen = resolve_seed(seed, generator)
    seen = run_probes(A, 32, 1, chosen, None)
    low, high = SpectralDensity(seen, 3.0, 2, margin).range
    A.prepare(steps * probes)
    rows = []
    with progress("Chebyshev", steps * probes) as advance:
        for index in range(probes):
            rows.append(_moments(A, unit_probe(A, chosen, index), steps, low, high, advance))
    moments = torch.tensor(rows, dtype=torch.float64)
    return KernelPolynomialDensity(moments, low, high, points, seen.products + steps * probes)


def _moments(
    A: SymmetricOperator,
    start: Tensor,
    steps: int,
    low: float,
    high: float,
    advance: Callable[[], None],
) -> list[float]:
    centre, half = (low + high) / 2, (high - low) / 2
    previous, current = start, (A @ start).sub_(start, alpha=centre).div_(half)
    moments = [1.0, inner(current, start)]
    advance()
    for _ in range(1, steps):
        square = inner(current, current)
        image = (A @ current).sub_(current, alpha=centre).mul_(2 / half)
        product = subtract_then_inner(image, 1.0, previous, current)
        moments += [2 * square - 1.0, 2 * product - moments[1]]
        if not abs(moments[-2]) < 1.5:
            raise ArithmeticError(
                f"the Chebyshev recurrence left [-1, 1] at moment {len(moments) - 2}: an "
                f"eigenvalue lies outside [{low:g}, {high:g}], or a product is not finite; give a "
                "larger margin, or use spectral_density, which needs no range"
            )
        previous, current = current, image
        advance()
    return moments
