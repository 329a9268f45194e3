"""Class structure in the spectra of trained PyTorch classifiers."""

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
    "GaussNewton",
    "Hessian",
    "LinearCombination",
    "LogitSpaceOperator",
    "MatrixOperator",
    "Problem",
    "Residual",
    "SymmetricOperator",
]
