"""Symmetric linear operators: what they are, how they combine, and those of a classifier."""

from deepspec.operators.base import SymmetricOperator
from deepspec.operators.block import ParameterBlock
from deepspec.operators.block_diagonal import BlockDiagonal
from deepspec.operators.combination import LinearCombination
from deepspec.operators.compression import Compression
from deepspec.operators.hessian import Hessian, Residual
from deepspec.operators.kronecker import KroneckerBasis, KroneckerProduct, KroneckerSum
from deepspec.operators.matrix import MatrixOperator
from deepspec.operators.projectors import ColumnSpace, Projector
from deepspec.operators.pullback import GaussNewton, LogitForm, PullbackOperator

__all__ = [
    "BlockDiagonal",
    "ColumnSpace",
    "Compression",
    "GaussNewton",
    "Hessian",
    "KroneckerBasis",
    "KroneckerProduct",
    "KroneckerSum",
    "LinearCombination",
    "LogitForm",
    "MatrixOperator",
    "ParameterBlock",
    "Projector",
    "PullbackOperator",
    "Residual",
    "SymmetricOperator",
]
