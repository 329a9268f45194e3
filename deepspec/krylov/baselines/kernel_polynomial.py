"""The kernel polynomial method: the density as a damped Chebyshev series, for comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_whole
from deepspec.krylov._arguments import check_operator, check_positive
from deepspec.krylov._bands import Band, quantile
from deepspec.krylov._inner import inner, subtract_then_inner
from deepspec.krylov._probes import unit_probe
from deepspec.krylov._progress import progress
from deepspec.krylov._resuming import opened
from deepspec.krylov._runs import run_probes
from deepspec.krylov._smearing import cells, check_drawing
from deepspec.krylov._spectral_density import SpectralDensity
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.checkpoint import (
    Checkpoint,
    as_tensor,
    finite,
    require,
    whole,
)
from deepspec.storage.display import Drawable, Result, Table, Tabular

RANGE_STEPS = 32  # products for the range (Normalization, Papyan 2020, Algorithm 4)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class KernelPolynomialDensity(Result, Tabular, Drawable):
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
    matvecs
        What it cost, the 32 for the range included.
    """

    moments: Float[Tensor, "n m"]
    low: float
    high: float
    points: int
    matvecs: int

    @property
    def spacing(self) -> float:
        """Between two grid points, in units of λ."""
        return (self.high - self.low) / (self.points - 1)

    @property
    def grid(self) -> Float[Tensor, " k"]:
        """Points on the λ axis."""
        return cells(self.low, self.high, self.points)[0]

    def cumulative(self, points: Float[Tensor, " k"] | None = None) -> Float[Tensor, " k"]:
        """The share of eigenvalues at or below each point (by default the grid's)."""
        return self._below(self.grid if points is None else points).mean(0)

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

    def band(self, level: float = 0.95) -> Band:
        """Lower and upper limit of :attr:`values`, taken for normal; NaN for a single probe."""
        reach = quantile(level) * self.standard_error
        return (self.values - reach).clamp_min(0), self.values + reach

    def _words(self) -> list[str]:
        probes, moments = self.moments.shape
        return [
            f"{moments} moments × {probes} probe{'s' if probes > 1 else ''}",
            f"λ in [{self.low:.4g}, {self.high:.4g}]",
            f"{self.matvecs:,} matvecs",
        ]

    def _table(self) -> Table:
        lower, upper = self.band()
        return {"eigenvalue": self.grid, "density": self.values, "lower": lower, "upper": upper}


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
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> KernelPolynomialDensity:
    """The density of A's eigenvalues from 2 · ``steps`` Chebyshev moments of each probe.

    t_{m+1} = 2 B t_m − t_{m−1}, μ_{2m} = 2⟨t_m, t_m⟩ − μ_0, μ_{2m+1} = 2⟨t_{m+1}, t_m⟩ − μ_1
    (Lin, Saad and Yang, 2016, section 3.1): two moments a product. The papers tried it beside
    Lanczos and found it temperamental: an eigenvalue outside the assumed range makes the
    recurrence grow without bound. That is noticed here and is an error.

    Parameters
    ----------
    steps
        Products per probe, after 32 for the range (Normalization, Papyan 2020, Algorithm 4).
    probes, points, margin, seed
        As in :func:`deepspec.spectral_density`.
    checkpoint, checkpoint_every
        As in :func:`deepspec.krylov.lanczos`; the run for the range has a folder in that folder.

    Raises
    ------
    ValueError
        If ``steps`` or ``probes`` is below 1, or the grid cannot be drawn.
    ArithmeticError
        If an eigenvalue lies outside the range that 32 steps suggested.
    CheckpointMismatch
        If the checkpoint is of another operator or configuration.

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
    chosen = whole_seed(seed)
    settings = {"steps": steps, "probes": probes, "margin": margin, "seed": chosen}
    store, saved = opened(checkpoint, checkpoint_every, A, "moments", settings)
    run = _Moments(A, steps, probes, chosen)
    if store is None or saved is None:
        within = None if store is None else replace(store, path=store.path / "range")
        seen = run_probes(A, RANGE_STEPS, 1, chosen, within)
        run.low, run.high = SpectralDensity(
            quadrature=seen, kappa=3.0, points=2, margin=margin
        ).range
        run.for_range = seen.matvecs
    else:
        with store.restoring():
            run.restore(*saved)
    run.complete(store)
    matvecs = run.for_range + steps * probes
    return KernelPolynomialDensity(
        moments=torch.stack(run.rows),
        low=run.low,
        high=run.high,
        points=points,
        matvecs=matvecs,
    )


class _Chebyshev:
    """The recurrence from one start: t_{m+1} = 2 B t_m − t_{m−1}, two moments a product."""

    def __init__(self, A: SymmetricOperator, start: Tensor, low: float, high: float) -> None:
        self.operator = A
        self.low, self.high = low, high
        self.previous: Tensor | None = None
        self.current = start
        self.moments = [1.0]

    def step(self) -> None:
        """One product."""
        centre, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        image = (self.operator @ self.current).sub_(self.current, alpha=centre)
        if self.previous is None:
            self.moments.append(inner(image.div_(half), self.current))
        else:
            square = inner(self.current, self.current)
            image.mul_(2 / half)
            product = subtract_then_inner(image, 1.0, self.previous, self.current)
            self.moments += [2 * square - 1.0, 2 * product - self.moments[1]]
        if not abs(self.moments[-2]) < 1.5:
            raise ArithmeticError(
                f"the Chebyshev recurrence left [-1, 1] at moment {len(self.moments) - 2}: an "
                f"eigenvalue lies outside [{self.low:g}, {self.high:g}], or a product is not "
                "finite; give a larger margin, or use spectral_density, which needs no range"
            )
        self.previous, self.current = self.current, image


class _Moments:
    """The moments of each probe in turn; between two products it can be written down."""

    def __init__(self, A: SymmetricOperator, steps: int, probes: int, seed: int) -> None:
        self.operator = A
        self.steps, self.probes, self.seed = steps, probes, seed
        self.low, self.high = 0.0, 0.0
        self.for_range = 0  # products
        self.rows: list[Tensor] = []
        self._running: _Chebyshev | None = None

    def complete(self, store: Checkpoint | None) -> None:
        """Take the products that are left, saving on the way and at the end."""
        self.operator.prepare(RANGE_STEPS + self.steps * self.probes)
        with progress("Chebyshev", self.steps * self.probes, self._taken) as advance:
            while len(self.rows) < self.probes:
                run = self._running or self._begun()
                while len(run.moments) < 2 * self.steps:
                    run.step()
                    advance()
                    self._running = run
                    if store is not None:
                        store.offer(self.state)
                self.rows.append(as_tensor(run.moments))
                self._running = None
        if store is not None:
            store.save(*self.state())

    @property
    def _taken(self) -> int:
        running = 0 if self._running is None else len(self._running.moments) // 2
        return self.steps * len(self.rows) + running

    def _begun(self) -> _Chebyshev:
        start = unit_probe(self.operator, self.seed, len(self.rows))
        return _Chebyshev(self.operator, start, self.low, self.high)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that the next product depends on."""
        range_found = {"low": self.low.hex(), "high": self.high.hex(), "matvecs": self.for_range}
        arrays = {f"moments {index}": row for index, row in enumerate(self.rows)}
        run = self._running
        if run is not None and run.previous is not None:
            arrays |= {"current": run.current, "previous": run.previous}
            arrays["moments so far"] = as_tensor(run.moments)
        return {"range": range_found, "probes": len(self.rows)}, arrays

    def restore(self, saved: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
        """Become the run whose :meth:`state` this is."""
        range_found = saved["range"]
        self.low, self.high = (float.fromhex(range_found[end]) for end in ("low", "high"))
        require(-math.inf < self.low < self.high < math.inf, "the range")
        self.for_range = whole(range_found["matvecs"], "the number of matvecs", 0)
        probes = whole(saved["probes"], "the number of probes", 0, self.probes)
        each, numbers = 2 * self.steps, as_tensor([])
        self.rows = [
            finite(arrays[f"moments {index}"], "the moments", (each,), numbers)
            for index in range(probes)
        ]
        if "current" in arrays:
            like = unit_probe(self.operator, self.seed, 0)
            current, previous = (
                finite(arrays[n], f"the {n} vector", like.shape, like)
                for n in ("current", "previous")
            )
            count = len(arrays["moments so far"])
            require(2 <= count <= each and count % 2 == 0, "the number of moments")
            moments = finite(arrays["moments so far"], "the moments", (count,), numbers)
            self._running = _Chebyshev(self.operator, current, self.low, self.high)
            self._running.previous = previous
            self._running.moments = moments.tolist()
