"""Nulls: what the same knockout removes when its cause is not what it is said to be.

* **A random subspace** of the same rank: what any knockout so large removes.
* **Shuffled labels**: class means of classes that mean nothing. Their c' ≠ c admits a sample's true
  label, whose probability near one outweighs all else.
* **Regrouped samples** (:meth:`deepspec.class_structure.cells.Cells.regrouped`): means over random
  groups, each sample's own label still left out. These carry the global mean, whatever the groups
  are, so the comparison is of what class means remove *beyond the global mean*: it asks whether
  the groups have to be the classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.attribution.knockouts import ritz
from deepspec.attribution.seeding import stream
from deepspec.class_structure.rows import Rows
from deepspec.krylov import Eigenpairs

MOST_ENTRIES, MOST_WORK, LEAST_SHARE = 2 * 10**8, 4 * 10**10, 1e-3
COLUMNS_AT_ONCE = 16


def shuffled_labels(labels: Int[Tensor, " n"], seed: int, draw: int) -> Int[Tensor, " n"]:
    """The labels in another order: class sizes stay, their link to the data goes."""
    order = torch.randperm(len(labels), generator=stream(seed, "shuffled labels", draw))
    return labels[order.to(labels.device)]


def random_subspace(
    size: int, rank: int, like: Tensor, generator: torch.Generator
) -> Float[Tensor, "p r"]:
    """An orthonormal basis of a subspace drawn uniformly."""
    normal = torch.randn(size, rank, generator=generator, dtype=torch.float32)
    basis, _ = torch.linalg.qr(normal)
    return basis.to(like.device, like.dtype)


def without_random_subspace(
    rows: Rows, pairs: Eigenpairs, rank: int, count: int, seed: int, draw: int
) -> Float[Tensor, " count"]:
    """Lower bounds on the top eigenvalues of V ⊘ R, R a random subspace of the vectors' space.

    On the row side that is S − Y Yᵀ with Y = D R, and the known eigenvectors serve as the space of
    trial vectors. Costs D R: half of rank-many products. Where R would be too large to form, or is
    so small a share of d that it can hardly differ from its mean, the mean takes its place:
    E Y Yᵀ = (rank/d) S.
    """
    size = rows.width
    rank = min(rank, size)
    too_large = size * rank > MOST_ENTRIES or size * rank**2 > MOST_WORK
    if too_large or rank < LEAST_SHARE * size:
        expected = torch.zeros(count, dtype=torch.float64)
        known = (1 - rank / size) * pairs.values[:count].double().cpu()
        expected[: len(known)] = known
        return expected
    like = pairs.vectors.new_zeros(0, dtype=rows.dtype)
    basis = random_subspace(size, rank, like, stream(seed, "random subspace", draw))
    parts = [rows.matmul(few) for few in basis.split(COLUMNS_AT_ONCE, 1)]
    image = torch.cat(parts, dim=1).double()
    vectors = pairs.vectors.double()
    mapped = vectors * pairs.values.double() - image @ (image.T @ vectors)
    return ritz(vectors, mapped, count)
