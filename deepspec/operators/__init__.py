"""Symmetric operators: what they are, how they combine, and those of a classifier."""

from deepspec.operators.algebra import (
    AlgebraicOperator,
    ColumnSpace,
    Compression,
    LinearCombination,
    MatrixOperator,
    Projector,
)
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.hessian import Hessian, Residual
from deepspec.operators.logit_space import GaussNewton, LogitKernel, LogitSpaceOperator

__all__ = [
    "AlgebraicOperator",
    "ColumnSpace",
    "Compression",
    "GaussNewton",
    "Hessian",
    "LinearCombination",
    "LogitKernel",
    "LogitSpaceOperator",
    "MatrixOperator",
    "Projector",
    "Residual",
    "SymmetricOperator",
]
