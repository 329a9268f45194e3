"""The Gram of means: by backward passes a class at a time, or as a contraction of Θ = J Jᵀ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.mean_columns import ClassBlock, MeanColumns
from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.problem import Problem

# Inner products over more entries than this are summed in float64.
ENTRIES_AT_ONCE = 2**16


class HasMatrix(Protocol):
    """Anything with Θ = J Jᵀ, such as :class:`deepspec.neural_tangent_kernel.TangentKernel`."""

    @property
    def matrix(self) -> Float[Tensor, "nC nC"]: ...


def mean_gram(
    problem: Problem, columns: MeanColumns, kernel: HasMatrix | None
) -> Float[Tensor, "r r"]:
    """LᵀΘL in float64, by whichever way a count of multiplications says is cheaper."""
    blocks = list(columns.blocks())
    inner = None
    if kernel is not None:
        inner = cheaper_contraction(problem, blocks, kernel)
    if inner is None:
        inner = pulled_gram(problem, blocks)
    gram = torch.zeros(len(columns.classes), len(columns.classes), dtype=torch.float64)
    gram = gram.to(problem.device)
    places = _places(blocks)
    for left, a in zip(blocks, places, strict=True):
        for right, b in zip(blocks, places, strict=True):
            part = left.mixing.T @ inner[a, b] @ right.mixing
            gram[left.members[:, None], right.members] = part
    return (gram + gram.T) / 2


def cheaper_contraction(
    problem: Problem, blocks: list[ClassBlock], kernel: HasMatrix
) -> Float[Tensor, "k k"] | None:
    """BᵀΘB, or None where backward passes would cost less."""
    size = problem.num_rows * problem.num_classes
    if kernel.matrix.shape != (size, size):
        raise ValueError(
            f"expected the tangent kernel of this problem, of shape ({size}, {size}), got "
            f"{tuple(kernel.matrix.shape)}"
        )
    passes, total = max(block.rank for block in blocks), sum(block.rank for block in blocks)
    by_pulls = 2 * passes * problem.num_rows * problem.size + problem.size * total**2 // 2
    by_contraction = size**2 * passes
    return contracted_gram(problem, blocks, kernel) if by_contraction <= by_pulls else None


def contracted_gram(
    problem: Problem, blocks: list[ClassBlock], kernel: HasMatrix
) -> Float[Tensor, "k k"]:
    """BᵀΘB for the blocks' bases B."""
    classes = problem.num_classes
    theta = kernel.matrix.view(problem.num_rows, classes, problem.num_rows, classes)
    places = _places(blocks)
    gram = torch.zeros(places[-1].stop, places[-1].stop, dtype=torch.float64)
    gram = gram.to(problem.device)
    for right, b in zip(blocks, places, strict=True):
        theta_right = _times(theta, right)
        for left, a in zip(blocks, places, strict=True):
            gram[a, b] = torch.einsum("ick,icl->kl", left.basis, theta_right[left.samples])
    return gram


def _times(theta: Float[Tensor, "n C n C"], block: ClassBlock) -> Float[Tensor, "n C k"]:
    rows = theta[:, :, block.samples].double()
    return rows.flatten(2) @ block.basis.flatten(0, 1)


def pulled_gram(problem: Problem, blocks: list[ClassBlock]) -> Float[Tensor, "k k"]:
    """(JᵀB)ᵀ(JᵀB), tensor groups of θ one after the other, as many as the budget holds."""
    total = sum(block.rank for block in blocks)
    gram = torch.zeros(total, total, dtype=torch.float64, device=problem.device)
    for names in _groups(problem, total):
        add_gram(gram, pulled(problem, blocks, names))
    return gram


def add_gram(gram: Float[Tensor, "k k"], vectors: Float[Tensor, "k p"]) -> None:
    """gram += V Vᵀ; blocks above the diagonal are mirrored, not computed."""
    count = len(vectors)
    step = max(16, -(-count // 8))
    for chunk in vectors.split(ENTRIES_AT_ONCE, dim=1):
        for start in range(0, count, step):
            stop = min(start + step, count)
            part = (chunk[start:stop] @ chunk[:stop].T).double()
            gram[start:stop, :stop] += part
            gram[:start, start:stop] += part[:, :start].T


def pulled(
    problem: Problem, blocks: list[ClassBlock], names: tuple[str, ...]
) -> Float[Tensor, "k p"]:
    """JᵀB for some tensors of θ, as rows: k_c backward passes over the samples of each class."""
    space = problem.space
    shapes = dict(zip(space.names, space.shapes, strict=True))
    part = ParameterSpace(names, tuple(shapes[name] for name in names))
    places = _places(blocks)

    def add(rows: slice, function: LogitFunction, vectors: Float[Tensor, "k p"]) -> None:
        for block, place in zip(blocks, places, strict=True):
            here = (block.samples >= rows.start) & (block.samples < rows.stop)
            if not bool(here.any()):
                continue
            chosen = function.pick_rows(block.samples[here] - rows.start)
            leaves = {name: chosen.parameters[name].detach().requires_grad_() for name in names}
            logits = chosen({**chosen.parameters, **leaves})
            coefficients = block.basis[here].to(problem.dtype)
            for column, into in zip(coefficients.unbind(2), vectors[place], strict=True):
                gradients = torch.autograd.grad(
                    logits, list(leaves.values()), column, retain_graph=True, allow_unused=True
                )
                part.accumulate(into, gradients)

    return problem.engine.over_batches((places[-1].stop, part.size), add)


def _places(blocks: list[ClassBlock]) -> list[slice]:
    """Where each block's basis stands among all."""
    ends = torch.tensor([0, *(block.rank for block in blocks)]).cumsum(0).tolist()
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _groups(problem: Problem, vectors: int) -> Iterator[tuple[str, ...]]:
    """The tensors of θ in groups of which this many vectors fit the budget, one at least."""
    space = problem.space
    limit = problem.engine.budget_bytes() // (max(vectors, 1) * problem.parameters.element_size())
    group: list[str] = []
    used = 0
    for name, count in zip(space.names, space.counts, strict=True):
        if group and used + count > limit:
            yield tuple(group)
            group, used = [], 0
        group.append(name)
        used += count
    yield tuple(group)
