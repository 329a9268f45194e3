"""Spectra from products alone, with their uncertainty."""

from deepspec.krylov._lanczos import lanczos
from deepspec.krylov._results import Eigenpairs, NotConverged
from deepspec.krylov._spectral_density import SpectralDensity
from deepspec.krylov._trace import Estimate, frobenius_norm, trace
from deepspec.krylov.baselines.kernel_polynomial import (
    KernelPolynomialDensity,
    kernel_polynomial_density,
)
from deepspec.krylov.baselines.subspace import subspace_iteration
from deepspec.krylov.blocks import BlockSpectra, BlockSpectrum, block_spectra
from deepspec.krylov.density import spectral_density
from deepspec.krylov.eigenpairs import top_eigenpairs
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
    "JoinedSpectrum",
    "KernelPolynomialDensity",
    "LogSpectralDensity",
    "NotConverged",
    "Outliers",
    "PowerLaw",
    "Quadrature",
    "SpectralDensity",
    "Tridiagonal",
    "block_spectra",
    "count_outliers",
    "fit_power_law",
    "frobenius_norm",
    "joined_spectrum",
    "kernel_polynomial_density",
    "lanczos",
    "log_spectral_density",
    "spectral_density",
    "subspace_iteration",
    "top_eigenpairs",
    "trace",
]
