"""Class structure in the spectra of trained PyTorch classifiers."""

from deepspec.krylov import (
    Eigenpairs,
    Tridiagonal,
    lanczos,
    log_spectral_density,
    spectral_density,
    top_eigenpairs,
)
from deepspec.operators import (
    ColumnSpace,
    Compression,
    GaussNewton,
    Hessian,
    LinearCombination,
    LogitSpaceOperator,
    MatrixOperator,
    Residual,
    SymmetricOperator,
)
from deepspec.problem import Problem
from deepspec.structure import ClassStructure

__all__ = [
    "ClassStructure",
    "ColumnSpace",
    "Compression",
    "Eigenpairs",
    "GaussNewton",
    "Hessian",
    "LinearCombination",
    "LogitSpaceOperator",
    "MatrixOperator",
    "Problem",
    "Residual",
    "SymmetricOperator",
    "Tridiagonal",
    "lanczos",
    "log_spectral_density",
    "spectral_density",
    "top_eigenpairs",
]
