"""What an operator promises and what it is given, checked in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepspec.arguments import shown

if TYPE_CHECKING:
    from deepspec.operators.base import SymmetricOperator


@dataclass(frozen=True)
class Space:
    """R^p in one precision, on one device."""

    size: int
    dtype: torch.dtype
    device: torch.device


def undeclared(kind: str) -> TypeError:
    """The error for an operator that never said its size, dtype and device."""
    return TypeError(
        f"expected {kind} to say its size, dtype and device, got none of them; call "
        "super().__init__(size, dtype, device) in its __init__, or define three properties"
    )


def check_space(A: SymmetricOperator) -> None:
    """Raise unless an operator's size, dtype and device are what they have to be."""
    kind = type(A).__name__
    if isinstance(A.size, bool) or not isinstance(A.size, Integral):
        raise TypeError(f"expected {kind}.size as an integer, got {shown(A.size)}")
    if A.size < 0:
        raise ValueError(f"expected {kind}.size of at least 0, got {A.size}")
    if not isinstance(A.dtype, torch.dtype) or not A.dtype.is_floating_point:
        raise TypeError(
            f"expected {kind}.dtype to be a real floating-point dtype such as torch.float64, "
            f"got {shown(A.dtype)}"
        )
    if not isinstance(A.device, torch.device):
        raise TypeError(
            f"expected {kind}.device to be a torch.device, got {A.device!r}; "
            f"wrap it as torch.device({A.device!r})"
        )


def same_place(here: torch.device, there: torch.device) -> bool:
    """Whether two names are of one device; one without an index is any of its type."""
    return here == there or (here.type == there.type and None in (here.index, there.index))


def check_vectors(A: SymmetricOperator, vectors: Any) -> None:
    """Raise unless A can be multiplied by this."""
    if not isinstance(vectors, Tensor):
        remedy = "convert with torch.as_tensor, or use A.to_scipy() for NumPy vectors"
        if hasattr(vectors, "_product"):
            remedy = "a product of two operators is not symmetric; multiply as A @ (B @ v)"
        raise TypeError(
            f"expected a torch tensor to multiply, got {type(vectors).__name__}; {remedy}"
        )
    if vectors.layout != torch.strided:
        raise TypeError(
            f"expected dense vectors to multiply, got {vectors.layout}; convert with .to_dense()"
        )
    if vectors.ndim not in (1, 2) or vectors.shape[0] != A.size:
        raise ValueError(
            f"expected a vector of shape ({A.size},) or columns ({A.size}, k), "
            f"got {tuple(vectors.shape)}"
        )
    if vectors.dtype != A.dtype or vectors.device != A.device:
        check_space(A)
        if vectors.dtype != A.dtype or not same_place(vectors.device, A.device):
            raise TypeError(
                f"expected {A.dtype} on {A.device}, got {vectors.dtype} on "
                f"{vectors.device}; move it with vectors.to(A.device, A.dtype)"
            )


def check_image(A: SymmetricOperator, columns: Tensor, image: Any) -> None:
    """Raise unless ``_product`` returned columns like those it was given.

    Whether they are finite is for the estimators to say, which look at norms anyway.
    """
    kind = f"{type(A).__name__}._product"
    if not isinstance(image, Tensor):
        remedy = ""
        if type(image).__module__.split(".")[0] == "numpy":
            remedy = "; convert with torch.from_numpy"
        elif image is None:
            remedy = "; is there a return?"
        raise TypeError(
            f"expected {kind} to return a torch tensor, got {type(image).__name__}{remedy}"
        )
    if image.shape != columns.shape:
        raise ValueError(
            f"expected {kind} to return columns of shape {tuple(columns.shape)}, as it was given, "
            f"got {tuple(image.shape)}; it takes and returns a block (p, k), also for one vector"
        )
    if image.dtype != columns.dtype or image.device != columns.device:
        raise TypeError(
            f"expected {kind} to return {columns.dtype} on {columns.device}, as it was given, got "
            f"{image.dtype} on {image.device}; return image.to(columns)"
        )


def check_columns(columns: Any, what: str) -> None:
    """Raise unless this is a finite floating-point tensor (p, k)."""
    if not isinstance(columns, Tensor):
        raise TypeError(
            f"expected {what} as a torch tensor, got {type(columns).__name__}; "
            "convert with torch.as_tensor"
        )
    if columns.ndim != 2:
        raise ValueError(f"expected {what} of shape (p, k), got {tuple(columns.shape)}")
    if not columns.dtype.is_floating_point:
        raise TypeError(
            f"expected {what} in floating point, got {columns.dtype}; convert with .double()"
        )
    if columns.layout != torch.strided:
        raise TypeError(f"expected dense {what}, got {columns.layout}; convert with .to_dense()")
    if not all_finite(columns):
        raise ValueError(f"expected finite {what}, got NaN or infinity among them")


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite, without a mask of the tensor's size."""
    if not tensor.numel():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def check_factor(factor: Any) -> float:
    """A finite real number to scale an operator by; a tensor or array of one number is one."""
    alone = isinstance(factor, Real)
    if not alone and getattr(factor, "shape", None) == () and not isinstance(factor, bool):
        alone = hasattr(factor, "__float__")
    if not alone or isinstance(factor, bool):
        raise TypeError(
            f"expected a number to multiply an operator by, got {type(factor).__name__}; "
            "A @ v is the product with a vector"
        )
    if not math.isfinite(factor):
        raise ValueError(f"expected a finite number to multiply an operator by, got {factor}")
    return float(factor)
