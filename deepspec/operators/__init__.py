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
from deepspec.operators.matrix import MatrixOperator
from deepspec.operators.pullback import GaussNewton, LogitForm, PullbackOperator

__all__ = [
    "AlgebraicOperator",
    "ColumnSpace",
    "Compression",
    "GaussNewton",
    "Hessian",
    "LinearCombination",
    "LogitForm",
    "MatrixOperator",
    "Projector",
    "PullbackOperator",
    "Residual",
    "SymmetricOperator",
]
