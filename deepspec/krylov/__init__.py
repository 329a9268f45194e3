"""Spectra from products alone, with their uncertainty."""

from deepspec.krylov.density import SpectralDensity, spectral_density
from deepspec.krylov.eigenpairs import Eigenpairs, NotConverged, top_eigenpairs
from deepspec.krylov.lanczos import Tridiagonal, lanczos
from deepspec.krylov.log_density import LogSpectralDensity, log_spectral_density
from deepspec.krylov.quadrature import Quadrature

__all__ = [
    "Eigenpairs",
    "LogSpectralDensity",
    "NotConverged",
    "Quadrature",
    "SpectralDensity",
    "Tridiagonal",
    "lanczos",
    "log_spectral_density",
    "spectral_density",
    "top_eigenpairs",
]
