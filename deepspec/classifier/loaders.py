"""DataLoaders: what they leave out, whose samples they give, and some of their batches alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from deepspec.classifier.generators import undisturbed


def lost_samples(data: Any) -> int:
    """How many samples a DataLoader with ``drop_last=True`` leaves out of every pass.

    >>> lost_samples(DataLoader(range(10), batch_size=4, drop_last=True))
    2
    """
    sampler = data.batch_sampler if isinstance(data, DataLoader) else None
    if not isinstance(sampler, BatchSampler) or not sampler.drop_last:
        return 0
    endless = isinstance(data.dataset, IterableDataset)
    source: Any = data.dataset if endless else sampler.sampler
    return len(source) % sampler.batch_size if isinstance(source, Sized) else 0


def has_own_shares(data: Any) -> bool:
    """Whether a DataLoader gives each process samples of its own choice (DistributedSampler)."""
    if not isinstance(data, DataLoader):
        return False
    within = getattr(data.batch_sampler, "sampler", None)
    return any(isinstance(sampler, DistributedSampler) for sampler in (data.sampler, within))


def is_by_index(loader: DataLoader) -> bool:
    """Whether its sampler tells what is in each batch; a subclass may do more than that."""
    endless = isinstance(loader.dataset, IterableDataset)
    return type(loader) is DataLoader and not endless and loader.batch_sampler is not None


def batch_sizes(loader: DataLoader) -> list[int]:
    """The number of samples of each batch, none of which is made.

    >>> batch_sizes(DataLoader(range(5), batch_size=2))
    [2, 2, 1]
    """
    sampler: Any = loader.batch_sampler
    with undisturbed(everywhere=True):
        return [len(list(indices)) for indices in sampler]


def chosen_batches(loader: DataLoader, chosen: range) -> DataLoader:
    """A loader of these batches, as the given one makes them, and of no others.

    >>> [batch.tolist() for batch in chosen_batches(DataLoader(range(5), 2), range(1, 3))]
    [[2, 3], [4]]
    """
    sampler: Any = loader.batch_sampler
    return DataLoader(
        loader.dataset,
        batch_sampler=_Chosen(sampler, chosen),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


class _Chosen:
    """Some of a batch sampler's batches."""

    def __init__(self, sampler: Iterable[Any], chosen: range) -> None:
        self.sampler, self.chosen = sampler, chosen

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.sampler), self.chosen.start, self.chosen.stop)
