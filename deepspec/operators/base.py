"""Symmetric linear operators: matrices known by their products (matvecs), with their algebra."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from deepspec.engine.distributed import ALONE, Group
from deepspec.operators._contract import (
    Space,
    check_factor,
    check_image,
    check_vectors,
    undeclared,
)

if TYPE_CHECKING:
    from deepspec.operators.compression import Compression
    from deepspec.operators.projectors import Projector

LONGEST_DESCRIPTION = 100  # characters, so that a repr stays a line


class HasVectors(Protocol):
    """Anything with orthonormal columns to deflate, such as :class:`deepspec.Eigenpairs`."""

    @property
    def vectors(self) -> Float[Tensor, "p k"]: ...


class SymmetricOperator(ABC):
    """A symmetric linear operator: a matrix of which only its products with vectors are known.

    A real p × p matrix A, known by A v.

    Symmetry is what this type means: estimators that need it ask for this type, and there
    is no flag to set wrongly. A subclass says how large the matrix is, in which precision and
    where it computes, by ``super().__init__(size, dtype, device)`` or by properties of these three
    names, and how to multiply a block of columns, ``_product``. It can then be multiplied,
    added, scaled and projected, and given to every estimator; sums, multiples and projections are
    operators again and cost nothing until they multiply.

    Parameters
    ----------
    size
        The number of rows p.
    dtype
        The precision of the vectors it takes and returns.
    device
        Where its vectors live.

    >>> class Laplacian(SymmetricOperator):  # second differences on a ring
    ...     def _product(self, columns):
    ...         return 2 * columns - columns.roll(1, 0) - columns.roll(-1, 0)
    >>> A = Laplacian(4, torch.float64, torch.device("cpu"))
    >>> A, 2 * A
    (<4 × 4 Laplacian, float64 on cpu>, <4 × 4 2·Laplacian, float64 on cpu>)
    >>> (2 * A) @ torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    tensor([ 4., -2.,  0., -2.], dtype=torch.float64)
    """

    # NumPy's scalars and arrays leave ``np.float64(2) * A`` to this class.
    __array_ufunc__ = None

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        # A frozen dataclass may call this from its ``__post_init__``.
        object.__setattr__(self, "_space", Space(size, dtype, device))

    @property
    def size(self) -> int:
        """The number of rows p."""
        return self._declared().size

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the vectors it takes and returns."""
        return self._declared().dtype

    @property
    def epsilon(self) -> float:
        """The relative rounding of a product: ε of the dtype, or of less that is inside."""
        return torch.finfo(self.dtype).eps

    @property
    def device(self) -> torch.device:
        """Where its vectors live."""
        return self._declared().device

    def _declared(self) -> Space:
        try:
            return self.__dict__["_space"]
        except KeyError:
            raise undeclared(type(self).__name__) from None

    @abstractmethod
    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        """A times a block of columns; what comes in has been checked, and must not be changed."""

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        return (self.size, self.size)

    def describe(self) -> str:
        """What it is, in a few words or a formula: "G − G_class"."""
        return type(self).__name__

    def __repr__(self) -> str:
        words = " ".join(self.describe().split())
        if len(words) > LONGEST_DESCRIPTION:
            words = words[: LONGEST_DESCRIPTION - 1] + "…"
        precision = str(self.dtype).removeprefix("torch.")
        return f"<{self.size:,} × {self.size:,} {words}, {precision} on {self.device}>"

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
            If the vectors are not a tensor of the operator's dtype on its device, or if what
            ``_product`` returned is not.
        ValueError
            If their shape is neither (p,) nor (p, k), or that of the image is another.
        """
        check_vectors(self, vectors)
        if vectors.ndim == 1:
            return self._image(vectors[:, None])[:, 0]
        if vectors.shape[1] == 0:
            return torch.zeros_like(vectors)
        return self._image(vectors)

    def _image(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        try:
            image = self._product(columns)
        except Exception as error:
            if not getattr(error, "__notes__", None):  # the innermost operator says it
                error.add_note(
                    f"raised by {type(self).__name__}._product for columns of shape "
                    f"{tuple(columns.shape)}, {columns.dtype} on {columns.device}; expected "
                    "the operator times these columns, in the same shape"
                )
            raise
        check_image(self, columns, image)
        return image

    def prepare(self, matvecs: int) -> None:
        """Make ready for about this many products; estimators call it before they start.

        Operators that can trade memory for speed do so here. There is nothing to do by default.
        """

    def plan(self) -> dict[str, str | int]:
        """Choices among equally right ways to multiply, which change the rounding; none here."""
        return {}

    def follow(self, plan: Mapping[str, str | int]) -> None:
        """Make the choices of an earlier run's :meth:`plan` again, so that it is repeated."""

    @property
    def group(self) -> Group:
        """The processes that a product takes; by default this one alone."""
        return ALONE

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

    # The algebra. Its results are subclasses, so they are imported where they are made.

    def __add__(self, other: SymmetricOperator) -> SymmetricOperator:
        return _combined((1.0, self), (1.0, other))

    def __radd__(self, other: int) -> SymmetricOperator:
        """``sum(operators)`` starts at 0."""
        if isinstance(other, int) and other == 0:
            return self
        raise TypeError(
            f"expected an operator to add, got {type(other).__name__}; wrap a matrix as "
            "deepspec.MatrixOperator(M)"
        )

    def __sub__(self, other: SymmetricOperator) -> SymmetricOperator:
        return _combined((1.0, self), (-1.0, other))

    def __mul__(self, factor: float) -> SymmetricOperator:
        return _combined((check_factor(factor), self))

    def __rmul__(self, factor: float) -> SymmetricOperator:
        return self * factor

    def __truediv__(self, divisor: float) -> SymmetricOperator:
        if check_factor(divisor) == 0:
            raise ZeroDivisionError(f"expected a divisor other than 0 for {self!r}, got 0")
        return self * (1.0 / check_factor(divisor))

    def __neg__(self) -> SymmetricOperator:
        return self * -1.0

    def project_out(self, projector: Projector) -> Compression:
        """The projection knockout A ⊘ B = (I − BB⁺) A (I − BB⁺), Papyan (2020), Definition 3.2.

        Parameters
        ----------
        projector
            BB⁺: a :class:`ColumnSpace` of given vectors, or a projector onto means.
        """
        from deepspec.operators.compression import Compression

        return Compression(self, projector)

    def deflate(self, pairs: HasVectors) -> Compression:
        """What is left of A off the given eigenvectors (Papyan, 2020, Appendix C.8).

        For exact eigenpairs this is A − Σ λ_i v_i v_iᵀ; for approximate ones it is the better
        of the two, because no cross terms remain.

        Multiples of it are compressions, too. A *sum* with it is not: what was removed here is not
        removed from the other terms, so that the sum has all p eigenvalues and a density counts
        those of the removed directions. To keep them out, add first, then deflate.
        """
        from deepspec.operators.compression import Compression
        from deepspec.operators.projectors import ColumnSpace

        vectors = getattr(pairs, "vectors", None)
        if vectors is None:
            raise TypeError(
                f"expected eigenpairs with .vectors to deflate, got {type(pairs).__name__}; for "
                "columns V use A.project_out(deepspec.ColumnSpace(V))"
            )
        return Compression(self, ColumnSpace(vectors))


def _combined(*terms: tuple[float, SymmetricOperator]) -> SymmetricOperator:
    from deepspec.operators.combination import LinearCombination

    return LinearCombination(*terms)
