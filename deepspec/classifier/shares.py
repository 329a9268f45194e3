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
    samples_of
        The number of samples of each batch, in order.
    sizes
        The number of rows that count of each, which may be none.
    bounds
        The first batch of each rank, and the number of batches at the end.
    rank
        Whose share :attr:`mine` is.

    >>> shares = Shares.equal([4, 4, 1], [4, 4, 1], ranks=2, rank=1)
    >>> list(shares.mine), shares.rows, shares.most
    ([2], (slice(0, 8, None), slice(8, 9, None)), 2)
    """

    samples_of: tuple[int, ...]
    sizes: tuple[int, ...]
    bounds: tuple[int, ...]
    rank: int

    @classmethod
    def equal(
        cls, samples_of: Sequence[int], sizes: Sequence[int], ranks: int, rank: int
    ) -> Shares:
        """As many batches for each, to within one."""
        bounds = tuple(-(-len(sizes) * place // ranks) for place in range(ranks + 1))
        return cls(tuple(samples_of), tuple(sizes), bounds, rank)

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
        """Each rank's rows."""
        starts = list(accumulate(self.sizes, initial=0))
        return tuple(slice(starts[a], starts[b]) for a, b in pairwise(self.bounds))

    @property
    def count(self) -> int:
        """How many rows count."""
        return sum(self.sizes)

    @property
    def first_sample(self) -> int:
        """The number of this rank's first sample."""
        return sum(self.samples_of[: self.mine.start])

    @property
    def first_full(self) -> int:
        """How many batches before this rank's have rows that count."""
        return sum(size > 0 for size in self.sizes[: self.mine.start])

    @property
    def full(self) -> int:
        """How many batches have rows that count."""
        return sum(size > 0 for size in self.sizes)

    @property
    def idle(self) -> int:
        """How many ranks have no batch."""
        return sum(start == stop for start, stop in pairwise(self.bounds))
