"""J and Jᵀ of one batch after the other, held or not, and what all batches make together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.classifier.shares import Shares
from deepspec.engine.autodiff import JacobianProducts
from deepspec.engine.autotune import Autotuner
from deepspec.engine.block_sums import BlockSums
from deepspec.engine.cache import BatchCache
from deepspec.engine.cached_products import jacobian_purpose
from deepspec.engine.distributed import Group


class JacobianBatches:
    """This rank's batches as rows of J; iterating is one pass over its data.

    Parameters
    ----------
    functions
        Starts a pass: yields each batch's rows and its function.
    space, dtype, device
        Of the columns.
    num_classes
        The number of logits.
    autotuner, cache
        How a batch is differentiated, and which are held.
    sums, group, shares
        How the ranks add and put together.
    """

    def __init__(
        self,
        functions: Callable[..., Iterator[tuple[slice, LogitFunction]]],
        space: ParameterSpace,
        dtype: torch.dtype,
        device: torch.device,
        num_classes: int,
        autotuner: Autotuner,
        cache: BatchCache,
        sums: BlockSums,
        group: Group,
        shares: Shares | None,
    ) -> None:
        self.functions = functions
        self.num_classes = num_classes
        self._size, self._dtype, self._device = space.size, dtype, device
        self._autotuner, self._cache, self._sums = autotuner, cache, sums
        self._group, self._shares = group, shares
        self.purpose = jacobian_purpose(autotuner, num_classes, cache.budget_bytes)

    def __iter__(self) -> Iterator[tuple[slice, JacobianProducts]]:
        held = self._cache.batches(self.purpose)
        for index, (rows, function) in enumerate(self.functions()):
            kept = held[index] if index < len(held) else None
            yield rows, kept or self._autotuner.transient(function)(function)

    # ---- one batch --------------------------------------------------------------------------

    def jvp(self, batch: JacobianProducts, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        """J V of a batch in float64, as many columns at once as pays."""
        parts = []
        for few in columns.split(self.columns_at_once(batch, columns.shape[1]), dim=1):
            one = few.shape[1] == 1
            parts.append(batch.jvp_one_by_one(few) if one else batch.jvp_together(few))
        return torch.cat(parts, dim=2).double()

    def vjp(
        self,
        batch: JacobianProducts,
        coefficients: Float[Tensor, "b C k"],
        result: Float[Tensor, "k p"],
    ) -> None:
        """Add Jᵀ R of a batch to ``result``."""
        count = coefficients.shape[2]
        at_once = self.columns_at_once(batch, count) if batch.pulls_together else count
        rows = coefficients.to(self._dtype).split(at_once, dim=2)
        for few, into in zip(rows, result.split(at_once), strict=True):
            batch.vjp_together(few, into)

    def columns_at_once(self, batch: JacobianProducts, count: int) -> int:
        """How many of ``count`` columns to push through a batch at a time."""
        if count == 1:
            return 1
        known = self._autotuner.known_columns_at_once(batch)
        if known is not None:
            return known
        room = self._cache.budget_bytes() - self._cache.bytes()
        few = self.zeros(min(4, count)).T
        return self._autotuner.columns_at_once(batch, few, max(room, 0), count)

    # ---- all batches ------------------------------------------------------------------------

    def zeros(self, count: int) -> Float[Tensor, "k p"]:
        """What so many columns of length p are added to."""
        return torch.zeros(count, self._size, dtype=self._dtype, device=self._device)

    def summed(
        self, count: int, jobs: Iterable[Callable[[Tensor], object]]
    ) -> Float[Tensor, "p k"]:
        """The sum of what each batch's job adds to zeros, over all ranks."""
        return self._sums.total(self.zeros(count), jobs).T

    def joined(self, parts: list[Tensor], columns: Tensor) -> Float[Tensor, "n C k"]:
        """This rank's rows of J V, and everyone's."""
        if self._shares is None or self._group.alone:
            return torch.cat(parts)
        shape = (self._shares.count, self.num_classes, columns.shape[1])
        whole = torch.empty(shape, dtype=torch.float64, device=self._device)
        if parts:
            torch.cat(parts, out=whole[self._shares.rows[self._group.rank]])
        owners = [(rows, owner) for owner, rows in enumerate(self._shares.rows)]
        self._group.fill(whole, owners, "putting J v together")
        return whole
