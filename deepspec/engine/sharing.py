"""A net and its data spread over ranks: one θ for all, and whole batches for each."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deepspec.classifier.batches import Batches
from deepspec.classifier.loaders import has_own_shares
from deepspec.classifier.shares import Shares
from deepspec.engine.distributed import Group


def share(batches: Batches, group: Group, sharded: bool) -> Shares | None:
    """Who has which batches; ``batches`` are then only this rank's. ``None`` for one process.

    Parameters
    ----------
    batches
        All data on every rank; with ``sharded`` each rank's own.
    group
        The ranks.
    sharded
        That each rank brings its own.

    Raises
    ------
    ValueError
        If ranks have other data, none, or there are fewer samples than ranks.

    Warns
    -----
    RuntimeWarning
        If there are fewer batches than ranks.
    """
    if group.alone:
        return None
    told = group.values(group.together(batches.sizes))
    counts = [sum(sizes) for sizes in told]
    if sharded and min(counts) == 0:
        raise ValueError(
            f"expected samples on every rank, got {counts} of them by rank; give each at least one"
        )
    if not sharded and any(sizes != told[0] for sizes in told):
        raise ValueError(
            f"expected the same data in the same batches on every rank, got {counts} samples by "
            "rank; give all data to each, which takes its share, or say sharded=True"
        )
    if not sharded and counts[0] < group.size:
        raise ValueError(
            f"expected at least one sample for each of {group.size} ranks, got {counts[0]}; start "
            "fewer processes"
        )
    if sharded:
        return Shares.given(told, group.rank)
    shares = Shares.equal(told[0], group.size, group.rank)
    batches.share = shares.mine
    if shares.idle and group.rank == 0:
        warnings.warn(
            f"{len(shares.sizes)} batches are shared by {group.size} processes, and {shares.idle} "
            f"have nothing to do; pass a batch_size of at most {shares.samples // group.size}",
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
