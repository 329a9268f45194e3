"""Parameters without a layer formula: rows of the Jacobian, one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.neural_tangent_kernel.accumulation import add_outer
from deepspec.problem import Problem


def add_jacobian(
    theta: Float[Tensor, "nC nC"],
    problem: Problem,
    names: tuple[str, ...],
    block_bytes: int,
    mine: Sequence[slice],
) -> None:
    """Θ += J Jᵀ over some tensors of θ, of which J holds as many columns as fit a block.

    ``mine`` are the blocks of samples whose rows of Θ this process computes.
    """
    limit = max(1, block_bytes // (len(theta) * problem.parameters.element_size()))
    for slices in _slices(problem, names, limit):
        width = sum(stop - start for start, stop in slices.values())
        rows = torch.zeros(len(theta), width, dtype=theta.dtype, device=theta.device)
        _fill(rows, problem, slices)
        add_outer(theta, rows, mine, problem.num_classes)


def _slices(
    problem: Problem, names: tuple[str, ...], limit: int
) -> Iterator[dict[str, tuple[int, int]]]:
    """Stretches of the tensors' entries, together at most ``limit`` of them."""
    counts = dict(zip(problem.space.names, problem.space.counts, strict=True))
    group: dict[str, tuple[int, int]] = {}
    room = limit
    for name in names:
        start = 0
        while start < counts[name]:
            stop = min(start + room, counts[name])
            group[name] = (start, stop)
            room -= stop - start
            start = stop
            if room == 0:
                yield group
                group, room = {}, limit
    if group:
        yield group


def _fill(
    rows: Float[Tensor, "nC s"], problem: Problem, slices: dict[str, tuple[int, int]]
) -> None:
    """The stretches' columns of J: a backward pass for each logit through a sample's own graph."""
    C, width = problem.num_classes, rows.shape[1]

    def of_batch(batch: slice, function: LogitFunction) -> list[Tensor]:
        found = rows.new_zeros((batch.stop - batch.start) * C, width)
        place = 0
        for sample in range(function.samples):
            single = function.pick(torch.tensor([sample], device=rows.device))
            leaves = {name: single.parameters[name].detach().requires_grad_() for name in slices}
            with torch.enable_grad():
                logits = single({**single.parameters, **leaves}).flatten()
            stop = place + len(logits)
            moving = logits if logits.requires_grad else ()
            for row, logit in zip(found[place:stop], moving, strict=False):
                gradients = torch.autograd.grad(
                    logit,
                    list(leaves.values()),
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                parts = zip(gradients, slices.values(), strict=True)
                torch.cat([g.reshape(-1)[a:b] for g, (a, b) in parts], out=row)
            place = stop
        return [found]

    for batch, (found,) in problem.engine.everywhere(of_batch):
        rows[batch.start * C : batch.stop * C] = found
