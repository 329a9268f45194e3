"""Symmetric operators: what they are, how they combine, and those of a classifier."""

from deepspec.operators.algebra import (
    AlgebraicOperator,
    ColumnSpace,
    Compression,
    LinearCombination,
    Projector,
)
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.hessian import Hessian, Residual
from deepspec.operators.logit_space import GaussNewton, LogitKernel, LogitSpaceOperator
from deepspec.operators.matrix import MatrixOperator

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
