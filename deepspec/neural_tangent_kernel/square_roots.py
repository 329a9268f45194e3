"""Kernels on logit space as squares, K = L Lᵀ: how Lᵀ acts, for those that are positive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.weights import (
    BetweenClassKernel,
    CrossClassKernel,
    OwnClassKernel,
    StructureKernel,
    WithinClassKernel,
)
from deepspec.classifier.softmax import mean_minus_each
from deepspec.operators.pullback import KernelCombination, LogitForm, SoftmaxHessian


@dataclass(frozen=True)
class Half:
    """Lᵀ: from columns on logit space (n, C, k) to columns of ``rows`` entries."""

    terms: tuple[tuple[float, LogitForm], ...]

    def __call__(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "r k"]:
        return torch.cat([scale * _half(kernel, columns) for scale, kernel in self.terms])

    def rows(self, samples: int, classes: int) -> int:
        """r."""
        return sum(_rows(kernel, samples, classes) for _, kernel in self.terms)


def half(kernel: LogitForm) -> Half | None:
    """Lᵀ with K = L Lᵀ, or ``None`` where no such L is known, as for a difference of parts.

    >>> half(SoftmaxHessian(torch.tensor([[0.5, 0.5]]))).rows(1, 2)
    2
    """
    terms = kernel.terms if isinstance(kernel, KernelCombination) else ((1.0, kernel),)
    known = isinstance(kernel, KernelCombination | SoftmaxHessian | StructureKernel)
    if not known or any(factor < 0 for factor, _ in terms):
        return None
    if not all(isinstance(term, SoftmaxHessian | StructureKernel) for _, term in terms):
        return None
    return Half(tuple((factor**0.5, term) for factor, term in terms))


def _rows(kernel: LogitForm, samples: int, classes: int) -> int:
    if isinstance(kernel, BetweenClassKernel | OwnClassKernel):
        return classes
    return classes**2 if isinstance(kernel, CrossClassKernel) else samples * classes


def _half(kernel: LogitForm, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "r k"]:
    if isinstance(kernel, SoftmaxHessian):
        # (diag p − p pᵀ) = A Aᵀ with Aᵀ u = √p ∘ (⟨p, u⟩ − u).
        p = kernel.probabilities
        differences = mean_minus_each(p, columns)
        return (p.sqrt()[:, :, None] * differences / len(p) ** 0.5).flatten(0, 1)
    if not isinstance(kernel, StructureKernel):
        raise TypeError(f"expected a kernel that is a square, got {kernel.describe()}")
    weights = kernel.weights
    differences = weights.differences(columns)
    cells = weights.cell_means(differences)
    if isinstance(kernel, WithinClassKernel):
        amount = (weights.share * weights.cell[weights.labels]).sqrt()
        return (amount[:, :, None] * (differences - cells[weights.labels])).flatten(0, 1)
    if isinstance(kernel, OwnClassKernel):
        return (weights.cell.diagonal().sqrt()[:, None, None] * cells).diagonal().T
    means = weights.row_means(cells)
    if isinstance(kernel, BetweenClassKernel):
        return weights.row.sqrt()[:, None] * means
    amount = (weights.row[:, None] * weights.row_share).sqrt()
    return (amount[:, :, None] * (cells - means[:, None])).flatten(0, 1)
