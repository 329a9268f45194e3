"""A net and its data spread over ranks: one θ for all, and whole batches for each."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deepspec.classifier.batches import Batches
from deepspec.classifier.loaders import has_own_shares
from deepspec.classifier.shares import Shares
from deepspec.engine.distributed import Group


def share(batches: Batches, counts: Callable[[], list[int]], group: Group) -> Shares | None:
    """Who has which batches; ``None`` for one process.

    Parameters
    ----------
    batches
        All data, on every rank.
    counts
        Tells how many rows of each batch count.
    group
        The ranks.

    Raises
    ------
    ValueError
        If ranks have other data, or there are fewer samples than ranks.

    Warns
    -----
    RuntimeWarning
        If there are fewer batches than ranks.
    """
    if group.alone:
        return None
    samples, rows = group.together(lambda: (batches.sizes(), counts()))
    told = group.values([samples, rows])
    if any(theirs != told[0] for theirs in told):
        raise ValueError(
            "expected the same data in the same batches on every rank, got "
            f"{[sum(sizes) for sizes, _ in told]} samples by rank; give all data to each, which "
            "takes its share"
        )
    if sum(samples) < group.size:
        raise ValueError(
            f"expected at least one sample for each of {group.size} ranks, got {sum(samples)}; "
            "start fewer processes"
        )
    shares = Shares.equal(samples, rows, group.size, group.rank)
    if shares.idle and group.rank == 0:
        warnings.warn(
            f"{len(rows)} batches are shared by {group.size} processes, and {shares.idle} have "
            f"nothing to do; pass a batch_size of at most {sum(samples) // group.size}",
            RuntimeWarning,
            stacklevel=4,
        )
    return shares


def refuse_own_shares(data: Any, group: Group) -> None:
    """Raise ValueError for a DataLoader that gives each process other samples by itself.

    It repeats samples until all have as many, and these would count twice in every spectrum.
    """
    if has_own_shares(data):
        remedy = (
            "give the Dataset, or a DataLoader without that sampler: each process takes its share"
            if not group.alone
            else "give the Dataset, and group= for all processes to share it"
        )
        raise ValueError(
            "expected data that are shared out here, got a DataLoader with a DistributedSampler, "
            f"which pads with samples that would count twice; {remedy}"
        )


def take_from_first(group: Group, tensors: Mapping[str, Tensor]) -> None:
    """In place: every rank's tensors become the first one's, to the bit.

    Raises
    ------
    ValueError
        If names, shapes or types differ.
    """
    if group.alone:
        return
    kinds = [[name, list(t.shape), str(t.dtype)] for name, t in tensors.items()]
    digest = hashlib.sha256(json.dumps(kinds).encode()).hexdigest()
    if len(set(group.values(digest))) > 1:
        raise ValueError(
            "expected the same model on every rank, but parameters or buffers differ in name, "
            "shape or type; build it alike on all of them"
        )
    for tensor in tensors.values():
        flat = tensor.detach().reshape(-1).clone().view(torch.uint8)
        group.fill(flat, [(slice(0, len(flat)), 0)], "taking the first rank's parameters")
        tensor.detach().copy_(flat.view(tensor.dtype).view(tensor.shape))
