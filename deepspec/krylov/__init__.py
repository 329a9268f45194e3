"""Spectra from products alone (matvecs), with their uncertainty.

- ``eigenpairs.py``, ``extremes.py``: a few eigenvalues; ``outliers.py``: how many stand apart.
- ``density.py``, ``log_density.py``, ``joined.py``: all of them as a density (SLQ), with bands.
- ``quadrature.py``, ``tridiagonal.py``: what Lanczos runs leave, which densities are drawn from.
- ``power_law.py``: a fit to a density; ``baselines``: the papers' other ways, to compare with.
"""

from deepspec.krylov import baselines
from deepspec.krylov._lanczos import lanczos
from deepspec.krylov._results import Eigenpairs, NotConverged
from deepspec.krylov._spectral_density import SpectralDensity
from deepspec.krylov._trace import Estimate, frobenius_norm, trace
from deepspec.krylov.blocks import BlockSpectra, BlockSpectrum, block_spectra
from deepspec.krylov.density import spectral_density
from deepspec.krylov.eigenpairs import top_eigenpairs
from deepspec.krylov.extremes import Extremes, extreme_eigenvalues
from deepspec.krylov.joined import JoinedSpectrum, joined_spectrum
from deepspec.krylov.log_density import LogSpectralDensity, log_spectral_density
from deepspec.krylov.outliers import Outliers, count_outliers
from deepspec.krylov.power_law import PowerLaw, fit_power_law
from deepspec.krylov.quadrature import Quadrature
from deepspec.krylov.tridiagonal import Tridiagonal

__all__ = [
    "BlockSpectra",
    "BlockSpectrum",
    "Eigenpairs",
    "Estimate",
    "Extremes",
    "JoinedSpectrum",
    "LogSpectralDensity",
    "NotConverged",
    "Outliers",
    "PowerLaw",
    "Quadrature",
    "SpectralDensity",
    "Tridiagonal",
    "baselines",
    "block_spectra",
    "count_outliers",
    "extreme_eigenvalues",
    "fit_power_law",
    "frobenius_norm",
    "joined_spectrum",
    "lanczos",
    "log_spectral_density",
    "spectral_density",
    "top_eigenpairs",
    "trace",
]
