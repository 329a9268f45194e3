"""The Gram matrix of the weighted extended gradients: all of G's spectrum, without p × k vectors.

With g_{i,c'} = J_iᵀ(p_i − e_c') and w_{i,c'} = p_{i,c'}/n ([002] eq. 6.2), let D be the nC × p
matrix with rows √w_{i,c'} g_{i,c'}ᵀ. Then G = DᵀD, and S = D Dᵀ has the same nonzero eigenvalues.

Both conventions share this D, because [000]'s δ_{i,c'} with weight 1/n is √w_{i,c'} g_{i,c'} too;
only what is averaged differs. In the coordinates of S every part of G is DᵀPD, P an orthogonal
projector, and the four projectors add up to the identity (:mod:`deepspec.class_structure.parts`).
So a subtraction knockout G − DᵀPD has the nonzero eigenvalues of (I − P) S (I − P), and vectors
have length nC instead of p.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.softmax import mean_minus_each
from deepspec.operators import MatrixOperator, SymmetricOperator
from deepspec.problem import Problem

COLUMNS_AT_ONCE = 16


class GradientGram(SymmetricOperator):
    """S = D Dᵀ (nC × nC) by products: one Jᵀ r and one J v each, as a product with G.

    Row i·C + c' belongs to sample i and cross-class c'.

    >>> model = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> S = GradientGram(Problem(model, (torch.eye(2), torch.tensor([0, 1]))))
    >>> torch.linalg.eigvalsh(S.to_dense()).numpy().round(3) + 0.0
    array([0.  , 0.  , 0.25, 0.75], dtype=float32)
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._root = (0.5 * problem.log_probabilities).exp() / math.sqrt(problem.num_samples)

    @property
    def size(self) -> int:
        return self.problem.num_samples * self.problem.num_classes

    @property
    def dtype(self) -> torch.dtype:
        return self.problem.dtype

    @property
    def device(self) -> torch.device:
        return self.problem.device

    def rows_times(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "m k"]:
        """D V, for columns in parameter space."""
        problem = self.problem
        differences = mean_minus_each(problem.probabilities, problem.engine.jvp(columns))
        scaled = self._root[:, :, None] * differences
        return scaled.reshape(self.size, -1).to(self.dtype)

    def columns_times(self, vectors: Float[Tensor, "m k"]) -> Float[Tensor, "p k"]:
        """Dᵀ X, vectors in parameter space."""
        problem = self.problem
        shaped = vectors.double().reshape(problem.num_samples, problem.num_classes, -1)
        scaled = self._root[:, :, None] * shaped
        total = problem.probabilities[:, :, None] * scaled.sum(dim=1, keepdim=True)
        return problem.engine.vjp(total - scaled)

    def prepare(self, matvecs: int) -> None:
        """Make ready for many products, as the problem's other operators do."""
        self.problem.engine.reserve_jacobian(matvecs)

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"operator": "gradient gram", **self.problem.fingerprint()}

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        parts = [
            self.rows_times(self.columns_times(few)) for few in columns.split(COLUMNS_AT_ONCE, 1)
        ]
        return torch.cat(parts, dim=1)

    def dense(self) -> MatrixOperator:
        """The same matrix, formed: (nC)² entries, for nC of a few thousand."""
        blocks = torch.eye(self.size, dtype=self.dtype, device=self.device).split(256, 1)
        matrix = torch.cat([self._product(block) for block in blocks], dim=1)
        return MatrixOperator((matrix + matrix.T) / 2)
