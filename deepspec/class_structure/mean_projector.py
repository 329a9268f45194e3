"""The orthogonal projector onto a span of means, in O(p) memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.mean_columns import MeanColumns
from deepspec.operators.on_problem import ProblemOperator
from deepspec.operators.projectors import Projector
from deepspec.operators.pullback import LogitForm
from deepspec.problem import Problem


@dataclass(frozen=True, eq=False)
class SpanKernel(LogitForm):
    """L W Wᵀ Lᵀ, where the columns of JᵀLW are an orthonormal basis of a span of means."""

    columns: MeanColumns
    whitening: Float[Tensor, "r k"]

    def __call__(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        return self.columns(self.whitening @ (self.whitening.T @ self.columns.transpose(columns)))

    def basis(self) -> Float[Tensor, "n C k"]:
        """L W."""
        return self.columns(self.whitening)

    def describe(self) -> str:
        return f"span of {self.whitening.shape[1]} means"


class MeansProjector(ProblemOperator, Projector):
    """P = JᵀK'J with K' = L (LᵀΘL)⁺ Lᵀ: one J v and one Jᵀ r a product (docs/theory.md §1).

    Made by :meth:`deepspec.class_structure.Means.projector`. Exact to ε times the condition
    number of the Gram of the means' directions; directions below ``100 r ε`` of the largest are
    left out, as rounding, and so is a mean of zero weight.
    """

    def __init__(
        self,
        problem: Problem,
        columns: MeanColumns,
        plain_gram: Float[Tensor, "r r"],
        weights: Float[Tensor, " r"],
        name: str,
    ) -> None:
        self.problem = problem
        self.name = name
        lengths = plain_gram.diagonal().clamp(min=0.0).sqrt()
        counted = (weights > 0) & (lengths > 0)
        scale = torch.where(counted, 1.0 / torch.where(counted, lengths, 1.0), 0.0)
        values, vectors = torch.linalg.eigh(scale[:, None] * plain_gram * scale)
        level = 100 * len(scale) * torch.finfo(problem.precision).eps
        keep = values > level * values.amax().clamp(min=torch.finfo(torch.float64).tiny)
        whitening = scale[:, None] * vectors[:, keep] / values[keep].sqrt()
        self.kernel = SpanKernel(columns, whitening)

    @property
    def rank(self) -> int:
        return self.kernel.whitening.shape[1]

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"span": self.name, "rank": self.rank, **self.problem.fingerprint()}

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.problem.engine.pullback_product(self.kernel, columns)
