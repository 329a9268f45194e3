"""Sums over all batches, one vector a batch, in the order of the data on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.shares import Shares
from deepspec.engine.distributed import Group

# Of the free memory, what vectors that wait for their turn may take.
SHARE_OF_MEMORY = 0.25

RANKS, BACKEND = "ranks", "backend"
IN_ORDER = "columns summed in order"
SENT = {
    "J v": "bytes sent for a column: J v",
    "in order": "bytes sent for a column: Jᵀ r",
    "in float64": "bytes sent for a column: Jᵀ r, in float64",
}
OWN = {RANKS, BACKEND, IN_ORDER, *SENT.values()}


class BlockSums:
    """Σ_b v_b over batches b, in one of two ways.

    *In order*: every rank but the first keeps its batches' vectors until the sum of all before
    them arrives. The additions are those of one process, and so are the bits, in any precision.

    *In float64*, for columns that memory has no room for in that way: each rank adds its own in
    float64, and one reduction adds the ranks'. With B batches the result is within
    ε/2 |Σ v_b| + B 2⁻⁵³ Σ |v_b| of the exact sum, entry by entry, ε that of the dtype: better than
    in order, but not to the bit the same for another number of ranks.

    Parameters
    ----------
    group, shares
        The ranks, and who has which batches.
    size, dtype
        Of a vector.
    """

    def __init__(self, group: Group, shares: Shares | None, size: int, dtype: torch.dtype) -> None:
        self._group, self._shares, self._size = group, shares, size
        self._number = torch.finfo(dtype).bits // 8
        #: How many columns of length p are summed in order at most.
        self.columns = 0
        if shares is not None and not group.alone:
            room = int(SHARE_OF_MEMORY * group.free_memory())
            self.columns = room // max(1, shares.most * size * self._number)

    def total(
        self, zeros: Float[Tensor, "k s"], jobs: Iterable[Callable[[Tensor], object]]
    ) -> Float[Tensor, "k s"]:
        """The sum, on every rank; each job adds one batch's vectors to what it is given."""
        if self._group.alone:
            for job in jobs:
                job(zeros)
            return zeros
        if zeros.numel() <= self.columns * self._size:
            return self._in_order(zeros, jobs)
        wide = zeros.double()
        for job in jobs:
            job(zeros)
            wide.add_(zeros)
            zeros.zero_()
        self._group.add(wide)
        return zeros.copy_(wide)

    def _in_order(self, total: Tensor, jobs: Iterable[Callable[[Tensor], object]]) -> Tensor:
        waiting: list[Tensor] = []
        for job in jobs:
            into = total if self._group.rank == 0 else torch.zeros_like(total)
            job(into)
            if into is not total:
                waiting.append(into)
        self._group.add_in_order(total, waiting)
        return total

    def plan(self, num_classes: int) -> dict[str, str | int]:
        """How the ranks exchange numbers, and how many bytes they send together."""
        if self._shares is None or self._group.alone:
            return {}
        others = self._group.size - 1
        return {
            RANKS: self._group.size,
            BACKEND: self._group.backend,
            IN_ORDER: self.columns,
            SENT["J v"]: others * self._shares.count * num_classes * 8,
            SENT["in order"]: 2 * others * self._size * self._number,
            SENT["in float64"]: 2 * others * self._size * 8,
        }

    def follow(self, plan: Mapping[str, str | int]) -> dict[str, str | int]:
        """Sum as many columns in order as that plan's ranks did, if they were as many.

        Returns
        -------
        dict
            The plan without what concerns ranks.
        """
        if plan.get(RANKS) == self._group.size and IN_ORDER in plan:
            self.columns = int(plan[IN_ORDER])
        return {name: choice for name, choice in plan.items() if name not in OWN}
