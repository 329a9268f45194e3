"""What a symmetric operator is off a subspace: projection knockouts and deflation."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import shown
from deepspec.engine.distributed import Group
from deepspec.operators._contract import check_factor, check_space, same_place
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.combination import LinearCombination, bracketed
from deepspec.operators.projectors import Projector, SumOfSpaces, dimensions


class Compression(SymmetricOperator):
    """(I − P) A (I − P): what A is off the range of P.

    Of its p eigenvalues, :attr:`num_removed` are zero because of P and mean nothing; estimators
    keep their probes off that range (:meth:`restrict`), so that these zeros do not enter a density.

    What was taken away stays away: the compression of a compression is one compression, off the
    *sum* of the two ranges. Where the projectors commute (one range inside the other, or orthogonal
    to it, as eigenvectors of the compression are) this is (I − Q)(I − P) A (I − P)(I − Q); where
    they do not, that product would let back in a part of what P removed.

    >>> import torch
    >>> from deepspec.operators import ColumnSpace, MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([3.0, 2.0, 1.0])))
    >>> axes = torch.eye(3)
    >>> twice = A.project_out(ColumnSpace(axes[:, :1])).project_out(ColumnSpace(axes[:, :2]))
    >>> twice, twice @ torch.ones(3)
    (<3 × 3 matrix off 2 dimensions, float32 on cpu>, tensor([0., 0., 1.]))

    Raises
    ------
    TypeError
        If the operator or the projector is none.
    ValueError
        If the projector is of another size, dtype or device.
    """

    def __init__(self, operator: SymmetricOperator, projector: Projector) -> None:
        if not isinstance(operator, SymmetricOperator):
            raise TypeError(
                f"expected a symmetric operator, got {shown(operator)}; wrap a matrix as "
                "deepspec.MatrixOperator(M)"
            )
        if not isinstance(projector, Projector):
            raise TypeError(
                f"expected a projector, got {type(projector).__name__}; for columns V it is "
                "deepspec.ColumnSpace(V)"
            )
        check_space(operator)
        if operator.size != projector.size:
            raise ValueError(f"expected a projector of size {operator.size}, got {projector.size}")
        if operator.dtype != projector.dtype or not same_place(operator.device, projector.device):
            raise ValueError(
                f"expected a projector of {operator.dtype} on {operator.device}, got "
                f"{projector.dtype} on {projector.device}; move its columns with .to(A.device, "
                "A.dtype) first"
            )
        super().__init__(operator.size, operator.dtype, operator.device)
        self.operator: SymmetricOperator = operator
        self.projector: Projector = projector
        if isinstance(operator, Compression):
            self.operator = operator.operator
            self.projector = SumOfSpaces(operator.projector, projector)

    @property
    def num_removed(self) -> int:
        """The dimension of the subspace that was taken away."""
        return self.projector.rank

    @property
    def epsilon(self) -> float:
        return self.operator.epsilon

    def describe(self) -> str:
        return f"{bracketed(self.operator.describe())} off {dimensions(self.num_removed)}"

    def __mul__(self, factor: float) -> Compression:
        """What is left of the multiple: still without the zeros of what was removed."""
        return Compression(LinearCombination((check_factor(factor), self.operator)), self.projector)

    def restrict(self, columns: Float[Tensor, "p ..."]) -> Float[Tensor, "p ..."]:
        """(I − P) times columns."""
        return columns - self.projector @ columns

    def fingerprint(self) -> dict[str, str | int | float]:
        inner = {f"compressed {name}": v for name, v in self.operator.fingerprint().items()}
        outer = {f"projector {name}": v for name, v in self.projector.fingerprint().items()}
        return {**self._identity(), "removed": self.num_removed, **inner, **outer}

    def prepare(self, matvecs: int) -> None:
        self.operator.prepare(matvecs)

    @property
    def group(self) -> Group:
        return self.operator.group

    def plan(self) -> dict[str, str | int]:
        return self.operator.plan()

    def follow(self, plan: Mapping[str, str | int]) -> None:
        self.operator.follow(plan)

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.restrict(self.operator @ self.restrict(columns))
