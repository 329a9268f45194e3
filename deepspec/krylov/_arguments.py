"""What every estimator asks of its arguments, and says when it did not get it."""

from __future__ import annotations

import math
from numbers import Integral

from torch import Tensor

from deepspec.operators._contract import all_finite, check_space
from deepspec.operators.base import SymmetricOperator


def check_operator(A: SymmetricOperator) -> None:
    """Raise unless A is an operator with something in it, with the remedy."""
    if not isinstance(A, SymmetricOperator):
        raise TypeError(
            f"expected a symmetric operator, got {type(A).__name__}; wrap a matrix as "
            "deepspec.MatrixOperator(M)"
        )
    check_space(A)
    if A.size == 0:
        raise ValueError(
            f"expected an operator of at least one row, got {A!r}; it has no eigenvalues"
        )


def check_whole(value: int, least: int, what: str) -> None:
    """Raise TypeError unless ``value`` is an integer, ValueError if it is below ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {what} as an integer, got {value!r}")
    if value < least:
        raise ValueError(f"expected {what} of at least {least}, got {value}")


def check_positive(value: float, what: str) -> None:
    """Raise ValueError unless 0 < ``value`` < ∞."""
    if not 0 < value < math.inf:
        raise ValueError(f"expected {what} above 0 and finite, got {value}")


def check_vectors(A: SymmetricOperator, vectors: Tensor, columns: bool) -> None:
    """Raise unless a start is finite, not zero, and of A's size, dtype and device."""
    if not isinstance(vectors, Tensor):
        raise TypeError(f"expected the start as a torch tensor, got {type(vectors).__name__}")
    wanted = f"columns ({A.size}, b)" if columns else f"of shape ({A.size},)"
    shaped = vectors.ndim == (2 if columns else 1) and vectors.shape[0] == A.size
    if not shaped or vectors.numel() == 0:
        raise ValueError(f"expected a start {wanted}, got shape {tuple(vectors.shape)}")
    if vectors.dtype != A.dtype or vectors.device != A.device:
        raise TypeError(
            f"expected a start of {A.dtype} on {A.device}, got {vectors.dtype} on "
            f"{vectors.device}; move it with start.to(A.device, A.dtype)"
        )
    if not all_finite(vectors) or not bool(vectors.any()):
        raise ValueError("expected a start that is finite and not zero everywhere")


def not_finite(A: SymmetricOperator, which: str) -> FloatingPointError:
    """The error for a product that cannot be worked with, with the remedies."""
    return FloatingPointError(
        f"{which} of {type(A).__name__} holds NaN or infinity, or its square overflows; look for "
        "them in the parameters, the data or the loss, or scale the operator: (1 / c) * A"
    )
