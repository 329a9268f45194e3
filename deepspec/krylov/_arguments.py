"""What every estimator asks of its arguments, and says when it did not get it."""

from __future__ import annotations

import torch
from torch import Tensor

from deepspec.arguments import check_above
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


def check_positive(value: float, what: str) -> None:
    """Raise TypeError unless ``value`` is a number, ValueError unless 0 < ``value`` < ∞."""
    check_above(value, 0, what)


def check_vectors(A: SymmetricOperator, vectors: Tensor, columns: bool) -> None:
    """Raise unless a start is finite, not zero, and of A's size, dtype and device."""
    if not isinstance(vectors, Tensor):
        raise TypeError(f"expected the start as a torch tensor, got {type(vectors).__name__}")
    wanted = f"columns ({A.size}, b)" if columns else f"of shape ({A.size},)"
    if vectors.layout != torch.strided:
        raise TypeError(f"expected a dense start, got {vectors.layout}; give start.to_dense()")
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
        f"expected finite products, but {which} of {type(A).__name__} holds NaN or infinity, or "
        "its square overflows; look for them in the parameters, the data or the loss, or scale "
        "the operator, (1 / c) * A, and multiply what is found by c"
    )
