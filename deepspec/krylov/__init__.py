"""Spectra from products alone, with their uncertainty."""

from deepspec.krylov.eigenpairs import Eigenpairs, NotConverged, top_eigenpairs
from deepspec.krylov.lanczos import Tridiagonal, lanczos

__all__ = ["Eigenpairs", "NotConverged", "Tridiagonal", "lanczos", "top_eigenpairs"]
