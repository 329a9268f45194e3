"""Spectra from products alone, with their uncertainty."""

from deepspec.krylov.density import spectral_density
from deepspec.krylov.eigenpairs import top_eigenpairs
from deepspec.krylov.joined import JoinedSpectrum, joined_spectrum
from deepspec.krylov.kernel_polynomial import KernelPolynomialDensity, kernel_polynomial_density
from deepspec.krylov.lanczos import lanczos
from deepspec.krylov.log_density import LogSpectralDensity, log_spectral_density
from deepspec.krylov.outliers import Outliers, count_outliers
from deepspec.krylov.pairs import Eigenpairs, NotConverged
from deepspec.krylov.power_law import PowerLaw, fit_power_law
from deepspec.krylov.quadrature import Quadrature
from deepspec.krylov.smeared import SpectralDensity
from deepspec.krylov.subspace import subspace_iteration
from deepspec.krylov.trace import Estimate, frobenius_norm, trace
from deepspec.krylov.tridiagonal import Tridiagonal

__all__ = [
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
