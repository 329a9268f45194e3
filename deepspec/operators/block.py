"""A diagonal block of an operator on parameters: some tensors of θ alone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.operators.base import SymmetricOperator
from deepspec.operators.on_problem import ProblemOperator


class ParameterBlock(SymmetricOperator):
    """EᵀA E, E the columns of the identity that belong to some tensors of θ.

    A product costs one with A. To differentiate by these tensors alone, which is cheaper, make a
    problem with ``parameters=``; the block is the same.

    Raises
    ------
    TypeError
        If A does not act on the parameters of a problem.
    ValueError
        If there are no such tensors.

    >>> from deepspec.operators import GaussNewton
    >>> from deepspec.problem import Problem
    >>> model = torch.nn.Linear(2, 2).double()
    >>> G = GaussNewton(Problem(model, (torch.eye(2).double(), torch.tensor([0, 1]))))
    >>> block = ParameterBlock(G, ("bias",))
    >>> bool(torch.allclose(block.to_dense(), G.to_dense()[4:, 4:]))
    True
    """

    def __init__(self, operator: ProblemOperator, names: tuple[str, ...]) -> None:
        if not isinstance(operator, ProblemOperator):
            raise TypeError(
                f"expected an operator on the parameters of a problem, got "
                f"{type(operator).__name__}; such as GaussNewton(problem)"
            )
        space = operator.problem.space
        missing = [name for name in names if name not in space.names]
        if missing or not names:
            raise ValueError(
                f"expected names of tensors of θ, got {missing[:3] or 'none'}; they are "
                f"{', '.join(space.names[:6])}…"
            )
        self.operator, self.names = operator, tuple(names)
        self._index = _entries(operator, set(names))
        super().__init__(len(self._index), operator.dtype, operator.device)

    def _product(self, columns: Float[Tensor, "s k"]) -> Float[Tensor, "s k"]:
        wide = columns.new_zeros(self.operator.size, columns.shape[1])
        wide[self._index] = columns
        return (self.operator @ wide)[self._index]

    def prepare(self, matvecs: int) -> None:
        self.operator.prepare(matvecs)

    def describe(self) -> str:
        return f"{self.operator.describe()} on {', '.join(self.names[:3])}" + (
            "…" if len(self.names) > 3 else ""
        )

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"block": ",".join(self.names), **self.operator.fingerprint()}


def _entries(operator: ProblemOperator, names: set[str]) -> Int[Tensor, " s"]:
    space = operator.problem.space
    parts, start = [], 0
    for name, count in zip(space.names, space.counts, strict=True):
        if name in names:
            parts.append(torch.arange(start, start + count))
        start += count
    return torch.cat(parts).to(operator.device)
