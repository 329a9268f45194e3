"""Nulls: what the same knockout removes when its cause is not what it is said to be."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.attribution.knockouts import KnownPairs, ritz
from deepspec.class_structure.extended_gradients import GradientGram
from deepspec.class_structure.parts import CellFrame
from deepspec.class_structure.weights import Convention, cross_class_weights
from deepspec.problem import Problem

MOST_ENTRIES, MOST_WORK, LEAST_SHARE = 2 * 10**8, 4 * 10**10, 1e-3


def shuffled_labels(problem: Problem, seed: int, draw: int) -> Int[Tensor, " n"]:
    """The labels in another order: class sizes stay, their link to the data goes."""
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + draw)
    order = torch.randperm(problem.num_samples, generator=generator)
    return problem.labels[order.to(problem.labels.device)]


def regrouped_frame(
    problem: Problem, groups: Int[Tensor, " n"], convention: Convention = "jmlr2020"
) -> CellFrame:
    """Means over arbitrary groups of samples, with each sample's own label still left out.

    A sterner null than shuffled labels. Under those, c' ≠ c admits each sample's true label,
    whose probability near one outweighs all else, and the means come out near zero. Here the
    gradients g_{i,c'}, c' ≠ y_i, keep their weights and only their groups are drawn: the global
    mean stays what it is, and all that is lost is that groups are classes.
    """
    weights = cross_class_weights(problem.log_probabilities, groups, convention)
    own = torch.nn.functional.one_hot(problem.labels, problem.num_classes).bool()
    others = weights.share.masked_fill(own, 0.0)
    total = torch.zeros_like(weights.cell).index_add_(0, groups, others)
    share = torch.where(total[groups] > 0, others / total[groups], 0.0)
    cell = weights.cell * total
    row = cell.sum(dim=1, keepdim=True)
    row_share = torch.where(row > 0, cell / row, 0.0)
    everything = row.sum()
    class_share = row[:, 0] / everything if float(everything) > 0 else row[:, 0]
    return CellFrame(
        share.sqrt(), groups, row_share.sqrt(), class_share.sqrt(), cell > 0, cell, problem.dtype
    )


def random_subspace(size: int, rank: int, like: Tensor, seed: int) -> Float[Tensor, "p r"]:
    """An orthonormal basis of a subspace drawn uniformly."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(size, rank, generator=generator, dtype=torch.float32)
    basis, _ = torch.linalg.qr(normal)
    return basis.to(like.device, like.dtype)


def without_random_subspace(
    gram: GradientGram, pairs: KnownPairs, rank: int, count: int, seed: int
) -> Float[Tensor, " count"]:
    """Lower bounds on the top eigenvalues of G ⊘ R, R a random subspace of parameter space.

    In the coordinates of S that is S − Y Yᵀ with Y = D R, and the known eigenvectors serve as the
    space of trial vectors. Costs J R: half of rank-many products. Where R would be too large to
    form, or is so small a share of p that it can hardly differ from its mean, the mean takes its
    place: E Y Yᵀ = (rank/p) S.
    """
    size = gram.problem.size
    rank = min(rank, size)
    too_large = size * rank > MOST_ENTRIES or size * rank**2 > MOST_WORK
    if too_large or rank < LEAST_SHARE * size:
        expected = torch.zeros(count, dtype=torch.float64)
        known = (1 - rank / size) * pairs.values[:count].double().cpu()
        expected[: len(known)] = known
        return expected
    basis = random_subspace(size, rank, pairs.vectors, seed)
    image = torch.cat([gram.rows_times(few) for few in basis.split(16, 1)], dim=1).double()
    vectors = pairs.vectors.double()
    mapped = vectors * pairs.values.double() - image @ (image.T @ vectors)
    return ritz(vectors, mapped, count)
