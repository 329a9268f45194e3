"""Started by torchrun: the processes of one command find each other, and one of them speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from deepspec.engine.distributed import Group
from deepspec.engine.errors import RankFailed

#: What torchrun sets for each process.
NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# An exchange waits for as long as others live: this is for what hangs though it lives.
PATIENCE = timedelta(hours=2)
# All processes of a job start at about the same time.
ARRIVAL = timedelta(minutes=5)
# For how long the others leave the last word to the first rank.
LAST_WORD = 10.0


def started_together() -> bool:
    """Whether torchrun started this process as one of several."""
    return all(os.environ.get(name) for name in NAMES) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def launched(device: str | None) -> Iterator[dist.ProcessGroup | None]:
    """The group of the processes that torchrun started; ``None`` for a process by itself.

    Inside only the first rank is heard. An error is told to the other ranks, and is left to the
    first one to be printed, as long as that one lives.

    Raises
    ------
    ValueError
        If there are more processes than GPUs on this machine.
    RankFailed
        If not all of them have started within five minutes; says which are missing.
    """
    if not started_together():
        yield None
        return
    on_gpu = device is not None and device.startswith("cuda")
    if on_gpu:
        place = int(os.environ.get("LOCAL_RANK", "0"))
        if place >= torch.cuda.device_count():
            raise ValueError(
                f"expected a GPU for each process, got {torch.cuda.device_count()} for process "
                f"number {place + 1} of this machine; start fewer with --nproc-per-node"
            )
        torch.cuda.set_device(place)
    store, rank, size = next(rendezvous("env://", timeout=ARRIVAL))
    _wait_for_all(store, rank, size)
    # Gloo beside NCCL, so that what is on the CPU can travel, too.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    group = dist.group.WORLD
    assert group is not None
    watched = Group(group)
    try:
        with ExitStack() as stack:
            stack.enter_context(watched.telling())
            if watched.rank:
                silence = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(silence))
                stack.enter_context(redirect_stderr(silence))
            yield group
    except BaseException:
        if watched.rank and watched.wait_for_the_first_to_end(LAST_WORD):
            sys.stderr.flush()
            os._exit(1)
        raise
    dist.destroy_process_group()


def _wait_for_all(store: dist.Store, rank: int, size: int) -> None:
    keys = [f"deepspec/here/{other}" for other in range(size)]
    store.set(keys[rank], "yes")
    try:
        store.wait(keys, ARRIVAL)
    except RuntimeError as error:
        missing = [other for other, key in enumerate(keys) if not store.check([key])]
        raise RankFailed(
            f"expected {size} processes within {ARRIVAL}, but of these ranks nothing was heard: "
            f"{missing}; see whether they failed to start"
        ) from error
