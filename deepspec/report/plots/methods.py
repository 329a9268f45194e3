"""How spectra are estimated, drawn: deflated or not, tails, and beside exact eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from deepspec.krylov import Eigenpairs, LogSpectralDensity, PowerLaw, SpectralDensity
from deepspec.report.plots.style import GREY, grey_grid, new_figure, styled

BLUE, ORANGE = "#0072B2", "#D55E00"


def _density(panel: Axes, density: SpectralDensity, size: float, label: str) -> None:
    """Eigenvalues per unit of λ, with what other probes might have given."""
    low, high = (size * edge for edge in density.band())
    panel.fill_between(density.grid, low.clamp_min(1e-12), high, color="#56B4E9", alpha=0.4, lw=0)
    panel.plot(density.grid, size * density.values, color=BLUE, lw=1.0, label=label)
    panel.set_yscale("log")
    panel.set_ylim(bottom=1e-2)
    grey_grid(panel)


@styled
def train_and_test(
    spectra: Sequence[tuple[str, Eigenpairs, SpectralDensity]], parameters: int
) -> Figure:
    """Hess on train and on test data, top C apart (Papyan 2020, Fig. 3)."""
    figure, axes = new_figure(1, len(spectra), 3.0, sharey=True)
    for panel, (title, pairs, rest) in zip(axes[0], spectra, strict=True):
        _density(panel, rest, parameters, "the rest")
        panel.plot(pairs.values, np.ones(len(pairs.values)), "v", color=ORANGE, label="top C")
        panel.set_title(title)
        panel.set_xlabel("eigenvalue λ of Hess")
    axes[0][0].set_ylabel("eigenvalues per unit of λ")
    axes[0][0].legend()
    return figure


@styled
def deflation(
    whole: SpectralDensity, pairs: Eigenpairs, rest: SpectralDensity, parameters: int
) -> Figure:
    """The same spectrum with its top C found first, and without (Papyan 2020, Fig. 17)."""
    figure, axes = new_figure(2, 1, 4.6, sharex=True, sharey=True)
    above, below = axes[0][0], axes[1][0]
    _density(above, rest, parameters, "the rest")
    above.plot(pairs.values, np.ones(len(pairs.values)), "v", color=ORANGE, label="top C")
    above.set_title("top C eigenpairs first, then Lanczos on the rest")
    _density(below, whole, parameters, "Lanczos alone")
    below.set_title("Lanczos alone")
    below.set_xlabel("eigenvalue λ of Hess")
    above.set_ylabel("eigenvalues per unit of λ")
    above.legend()
    return figure


@styled
def undeflated(whole: SpectralDensity, parameters: int) -> Figure:
    """Hess as Lanczos alone sees it (Papyan 2020, Fig. 14)."""
    figure, axes = new_figure(1, 1, 3.0)
    _density(axes[0][0], whole, parameters, "Lanczos alone")
    axes[0][0].set_xlabel("eigenvalue λ of Hess")
    axes[0][0].set_ylabel("eigenvalues per unit of λ")
    return figure


@styled
def tails(density: LogSpectralDensity, law: PowerLaw) -> Figure:
    """E on a log axis: both sides of zero, and a power law (Papyan 2020, Fig. 16)."""
    figure, axes = new_figure(1, 1, 3.4)
    panel = axes[0][0]
    panel.plot(density.grid, density.positive, color="#B00020", label="positive eigenvalues")
    panel.plot(density.grid, density.negative, color=BLUE, ls="--", label="negative, |λ|")
    grid = np.geomspace(law.low, law.high, 50)
    panel.plot(
        grid,
        0.5 * law.prefactor * grid**-law.exponent,
        color="black",
        lw=1,
        label=f"$|λ|^{{-{law.exponent:.2f}}}$, R² {law.r_squared:.3f}",
    )
    panel.set_xscale("log")
    panel.set_yscale("log")
    top = float(density.values.max())
    panel.set_ylim(1e-6 * top, 3 * top)
    panel.set_xlabel("|λ|")
    panel.set_ylabel(f"density of E per {'unit of ln |λ|' if density.per == 'log' else 'unit'}")
    panel.legend()
    grey_grid(panel)
    return figure


@styled
def verification(
    cases: Sequence[tuple[str, Float[Tensor, " m"], SpectralDensity, bool]],
) -> Figure:
    """Estimated densities over exact eigenvalues (Papyan 2020, Fig. 15)."""
    figure, axes = new_figure(1, len(cases), 3.0)
    for panel, (title, exact, density, logarithmic) in zip(axes[0], cases, strict=True):
        values = exact.numpy()
        panel.hist(values, bins=100, density=True, color="#C9D3DA", label="exact")
        panel.plot(density.grid, density.values, color="#B00020", lw=1.0, label="estimated")
        if logarithmic:
            panel.set_yscale("log")
            panel.set_ylim(0.2 / (len(values) * float(np.ptp(values)) / 100), None)
        panel.set_title(title)
        panel.set_xlabel("eigenvalue λ")
        panel.axhline(0, color=GREY, lw=0.5)
    axes[0][0].set_ylabel("density")
    axes[0][0].legend()
    return figure
