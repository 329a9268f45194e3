"""Θ += something symmetric: below the diagonal only, block by block, and mirrored in the end."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from deepspec.layers.formula import LayerFormula

# Blocks of the elementwise work stay near the caches.
ENTRIES_AT_ONCE = 2**20


def add_outer(theta: Float[Tensor, "m m"], rows: Float[Tensor, "m s"]) -> None:
    """Θ += A Aᵀ on and below the diagonal."""
    size = len(theta)
    step = max(64, -(-size // 16))
    for start in range(0, size, step):
        stop = min(start + step, size)
        theta[start:stop, :stop].addmm_(rows[start:stop], rows[:stop].T)


def add_pairs(
    theta: Float[Tensor, "m m"],
    formula: LayerFormula,
    inputs: Float[Tensor, "n g t k"],
    errors: Float[Tensor, "n C g t o"],
) -> None:
    """Θ[ic, jd] += Σ_{g,t,s} ⟨x_{i,t}, x_{j,s}⟩ ⟨δ_{i,c,t}, δ_{j,d,s}⟩ below the diagonal.

    No Jacobian is formed: for a linear layer this is (H Hᵀ) ∘ (δ δᵀ).
    """
    n, C, groups, t, _ = errors.shape
    blocks = theta.view(n, C, n, C)
    step = max(1, int(ENTRIES_AT_ONCE**0.5) // (C * t))
    for group in range(groups):
        x, e = inputs[:, group], errors[:, :, group]
        for start in range(0, n, step):
            rows = slice(start, start + step)
            left_x, left_e = x[rows].flatten(0, 1), e[rows].flatten(0, 2)
            for other in range(0, start + 1, step):
                columns = slice(other, other + step)
                alike = formula.products(left_x, x[columns].flatten(0, 1))
                pairs = left_e @ e[columns].flatten(0, 2).T
                a, b = len(x[rows]), len(x[columns])
                product = pairs.view(a, C, t, b, C, t).mul_(alike.view(a, 1, t, b, 1, t))
                blocks[rows, :, columns] += (
                    product.sum(dim=(2, 5)) if t > 1 else product[:, :, 0, :, :, 0]
                )


def mirror(theta: Float[Tensor, "m m"]) -> None:
    """Copy what is below the diagonal to above it."""
    size = len(theta)
    step = max(64, -(-size // 16))
    for start in range(0, size, step):
        stop = min(start + step, size)
        theta[start:stop, stop:] = theta[stop:, start:stop].T
        square = theta[start:stop, start:stop]
        square.copy_(square.tril() + square.tril(-1).T)
