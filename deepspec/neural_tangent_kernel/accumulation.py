"""Θ += something symmetric: below the diagonal only, block by block, and mirrored in the end."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from jaxtyping import Float
from torch import Tensor

from deepspec.layers.formula import LayerFormula

# Blocks of the elementwise work stay near the caches.
ENTRIES_AT_ONCE = 2**20


# Blocks of rows: as many at least, and of all rows no more than this many blocks.
ROWS_AT_LEAST, MOST_BLOCKS = 64, 16


def sample_blocks(samples: int, classes: int) -> list[slice]:
    """The rows of Θ in blocks of whole samples, each of which one process computes.

    They depend on the size of Θ alone, and so do the numbers.

    >>> sample_blocks(20, 10)
    [slice(0, 7, None), slice(7, 14, None), slice(14, 20, None)]
    """
    rows = max(ROWS_AT_LEAST, -(-samples * classes // MOST_BLOCKS))
    step = -(-rows // classes)
    return [slice(start, min(start + step, samples)) for start in range(0, samples, step)]


def add_outer(
    theta: Float[Tensor, "m m"], rows: Float[Tensor, "m s"], blocks: Iterable[slice], classes: int
) -> None:
    """Θ += A Aᵀ on and below the diagonal, in some blocks of samples."""
    for block in blocks:
        start, stop = block.start * classes, block.stop * classes
        theta[start:stop, :stop].addmm_(rows[start:stop], rows[:stop].T)


def add_pairs(
    theta: Float[Tensor, "m m"],
    formula: LayerFormula,
    inputs: Float[Tensor, "n g t k"],
    errors: Float[Tensor, "n C g t o"],
    blocks: Iterable[slice],
) -> None:
    """Θ[ic, jd] += Σ_{g,t,s} ⟨x_{i,t}, x_{j,s}⟩ ⟨δ_{i,c,t}, δ_{j,d,s}⟩ below the diagonal.

    No Jacobian is formed: for a linear layer this is (H Hᵀ) ∘ (δ δᵀ).
    """
    n, C, groups, t, _ = errors.shape
    places = theta.view(n, C, n, C)
    step = max(1, int(ENTRIES_AT_ONCE**0.5) // (C * t))
    for block, group in product(blocks, range(groups)):
        x, e = inputs[:, group], errors[:, :, group]
        for start in range(block.start, block.stop, step):
            rows = slice(start, min(start + step, block.stop))
            left_x, left_e = x[rows].flatten(0, 1), e[rows].flatten(0, 2)
            for other in range(0, rows.stop, step):
                columns = slice(other, min(other + step, rows.stop))
                alike = formula.products(left_x, x[columns].flatten(0, 1))
                pairs = left_e @ e[columns].flatten(0, 2).T
                a, b = len(x[rows]), len(x[columns])
                found = pairs.view(a, C, t, b, C, t).mul_(alike.view(a, 1, t, b, 1, t))
                places[rows, :, columns] += (
                    found.sum(dim=(2, 5)) if t > 1 else found[:, :, 0, :, :, 0]
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
