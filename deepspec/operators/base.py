"""A symmetric matrix known only by its products."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor


class SymmetricOperator(ABC):
    """A real symmetric p × p matrix A, of which only products A v are known.

    Symmetry is what this type means: estimators that need it ask for this type, and there
    is no flag to set wrongly. Subclasses say how large the matrix is (:attr:`size`), in which
    precision and where it computes, and how to multiply a block of columns.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of rows p."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The precision of the vectors it takes and returns."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its vectors live."""

    @abstractmethod
    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        """A times a block of columns; what comes in has been checked, and must not be changed."""

    @property
    def shape(self) -> tuple[int, int]:
        return (self.size, self.size)

    def fingerprint(self) -> dict[str, str | int | float]:
        """What tells this operator from another: a checkpoint of one is refused for the other.

        The default costs one product, with a probe that is the same every time, and keeps four
        numbers of it: other data or parameters are noticed, a change in the last bits (another
        number of threads) is not. An operator that knows its data may name them instead.

        Returns
        -------
        dict
            Names and values; floats are compared to a relative 32 ε of the dtype.

        >>> from deepspec.operators.matrix import MatrixOperator
        >>> MatrixOperator(torch.eye(2)).fingerprint()["size"]
        2
        """
        probe = torch.cos(torch.arange(1, self.size + 1, dtype=torch.float64).square_())
        image = (self @ probe.to(self.device, self.dtype)).double()
        places = torch.arange(self.size, dtype=torch.float64, device=self.device)
        norm = float(image.norm())
        waves = {
            f"product {wave}": norm + float(image @ torch.cos(wave * places)) for wave in (1, 2, 3)
        }
        return {**self._identity(), "product norm": norm, **waves}

    def _identity(self) -> dict[str, str | int | float]:
        return {"operator": type(self).__name__, "size": self.size, "dtype": str(self.dtype)}

    def __matmul__(self, vectors: Float[Tensor, "p ..."]) -> Float[Tensor, "p ..."]:
        """A v for a vector (p,), or A V for columns (p, k).

        Raises
        ------
        TypeError
            If ``vectors`` is not a tensor of the operator's dtype on its device.
        ValueError
            If its shape is neither (p,) nor (p, k).
        """
        if not isinstance(vectors, Tensor):
            raise TypeError(
                f"expected a torch tensor to multiply, got {type(vectors).__name__}; "
                "convert with torch.as_tensor, or use A.to_scipy() for NumPy vectors"
            )
        if vectors.ndim not in (1, 2) or vectors.shape[0] != self.size:
            raise ValueError(
                f"expected a vector of shape ({self.size},) or columns ({self.size}, k), "
                f"got {tuple(vectors.shape)}"
            )
        if vectors.dtype != self.dtype or vectors.device != self.device:
            raise TypeError(
                f"expected {self.dtype} on {self.device}, got {vectors.dtype} on "
                f"{vectors.device}; move it with vectors.to(A.device, A.dtype)"
            )
        if vectors.ndim == 1:
            return self._product(vectors[:, None])[:, 0]
        if vectors.shape[1] == 0:
            return torch.zeros_like(vectors)
        return self._product(vectors)

    def prepare(self, products: int) -> None:
        """Make ready for about this many products; estimators call it before they start.

        Operators that can trade memory for speed do so here. There is nothing to do by default.
        """

    def plan(self) -> dict[str, str | int]:
        """Autotuner among equally right ways to multiply, which change the rounding; none here."""
        return {}

    def follow(self, plan: Mapping[str, str | int]) -> None:
        """Make the choices of an earlier run's :meth:`plan` again, so that it is repeated."""

    def to_dense(self) -> Float[Tensor, "p p"]:
        """The matrix itself, p products: for small p and for tests."""
        identity = torch.eye(self.size, dtype=self.dtype, device=self.device)
        return self @ identity

    def to_scipy(self) -> LinearOperator:
        """The same matrix for SciPy's solvers; vectors cross to NumPy and back."""

        def multiply(array: np.ndarray) -> np.ndarray:
            tensor = torch.as_tensor(array).to(self.device, self.dtype)
            return (self @ tensor).cpu().numpy()

        numpy_dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return LinearOperator(
            self.shape, matvec=multiply, rmatvec=multiply, matmat=multiply, dtype=numpy_dtype
        )
