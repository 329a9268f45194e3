"""Which batches each of several processes has: contiguous, whole, and decided by counts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise


@dataclass(frozen=True)
class Shares:
    """Batches of known sizes, cut into one contiguous share for each rank.

    Batches are the blocks in which sums over samples are taken, whatever the number of ranks, so
    a share is of whole batches and some ranks may have none. The first rank always has the first.

    Attributes
    ----------
    sizes
        The number of samples of each batch, in order.
    bounds
        The first batch of each rank, and the number of batches at the end.
    rank
        Whose share :attr:`mine` is.

    >>> shares = Shares.equal([4, 4, 1], ranks=2, rank=1)
    >>> list(shares.mine), shares.rows, shares.most
    ([2], (slice(0, 8, None), slice(8, 9, None)), 2)
    """

    sizes: tuple[int, ...]
    bounds: tuple[int, ...]
    rank: int

    @classmethod
    def equal(cls, sizes: Sequence[int], ranks: int, rank: int) -> Shares:
        """As many batches for each, to within one."""
        bounds = tuple(-(-len(sizes) * place // ranks) for place in range(ranks + 1))
        return cls(tuple(sizes), bounds, rank)

    @classmethod
    def given(cls, sizes: Sequence[Sequence[int]], rank: int) -> Shares:
        """What each rank brings, the first rank's first."""
        bounds = tuple(accumulate((len(own) for own in sizes), initial=0))
        return cls(tuple(size for own in sizes for size in own), bounds, rank)

    @property
    def mine(self) -> range:
        """The numbers of this rank's batches."""
        return range(self.bounds[self.rank], self.bounds[self.rank + 1])

    @property
    def most(self) -> int:
        """The largest number of batches that a rank has."""
        return max(stop - start for start, stop in pairwise(self.bounds))

    @cached_property
    def rows(self) -> tuple[slice, ...]:
        """Each rank's samples."""
        starts = list(accumulate(self.sizes, initial=0))
        return tuple(slice(starts[a], starts[b]) for a, b in pairwise(self.bounds))

    @property
    def samples(self) -> int:
        """n."""
        return sum(self.sizes)

    @property
    def idle(self) -> int:
        """How many ranks have no batch."""
        return sum(start == stop for start, stop in pairwise(self.bounds))
