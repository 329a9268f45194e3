"""Ranks that hear of each other's death: signs of life, and the error of whoever fails first.

A collective waits for ranks that will never come. So every rank leaves a sign of life in the
group's store each second, and the error that ends it, as JSON; whoever waits in an exchange looks
there, and raises with that error instead of hanging.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch.distributed import Store

from deepspec.engine.errors import RankFailed

Result = TypeVar("Result")

#: Seconds between two signs of life, and between two looks at those of others.
BEAT = 1.0
#: A rank that gives none for so long is taken for dead.
SILENCE = 30.0
#: After a broken connection: for how long to look for the error behind it.
GRACE = 10.0

#: At the end, for an exchange that cannot end: for how long to wait for it.
FAREWELL = 5.0

ERROR, ENDED = "error", "ended"


class Watch:
    """One rank's exchanges, watched; and its own signs of life.

    Parameters
    ----------
    store
        Where the ranks of one group, and nobody else, leave keys.
    rank, size
        Which of how many ranks this is.
    """

    def __init__(self, store: Store, rank: int, size: int) -> None:
        self._store, self.rank, self._size = store, rank, size
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._broken = False
        #: What the process ends with once an exchange was broken off.
        self.status = 1
        store.set(self._key(rank), "0")
        self._threads = [
            threading.Thread(target=target, name=f"deepspec {target.__name__}", daemon=True)
            for target in (self._beat, self._work)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.end)
        _tell_what_is_not_caught(self)

    def run(self, work: Callable[[], Result], what: str) -> Result:
        """What ``work`` returns, a thread of its own waiting in it.

        Raises
        ------
        RankFailed
            If another rank has failed, ended, or given no sign of life for half a minute.
        """
        job = _Job(work)
        self._jobs.put(job)
        seen: dict[int, tuple[str, float]] = {}
        try:
            while not job.done.wait(BEAT):
                self._look(seen, SILENCE, what)
            if job.error is not None:
                raise self._behind(job.error, what) from job.error
        except RankFailed:
            self._broken = True
            raise
        return job.value

    def tell(self, error: BaseException) -> None:
        """Let the others know what ends this rank; of several errors the first one counts."""
        if not isinstance(error, RankFailed):
            self._tell(self.rank, f"raised {type(error).__name__}: {error}")

    def end(self) -> None:
        """At the end of the process: say so, and leave no thread inside an exchange.

        One that came back to Python, or to PyTorch, when that is no longer there would end in an
        abort. So a process that lost a rank ends here, with :attr:`status`.
        """
        self._ended.set()
        self._jobs.put(None)
        with suppress(RuntimeError):  # without a store there is nobody to tell
            self._store.set(self._key(self.rank), ENDED)
        for thread in self._threads:
            thread.join(0.0 if self._broken else FAREWELL)
        if self._broken or any(thread.is_alive() for thread in self._threads):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)

    def wait_for_the_end_of(self, rank: int, seconds: float) -> bool:
        """Whether another rank has ended, waiting for so long at most."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self._sign(rank) == ENDED:
                    return True
            except RuntimeError:
                return False
            time.sleep(0.1)
        return False

    # ---- threads ------------------------------------------------------------------------------

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(BEAT):
            count += 1
            try:
                self._store.set(self._key(self.rank), str(count))
            except RuntimeError:
                return  # whoever waits in an exchange says so

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                with torch.no_grad():
                    job.value = job.work()
            except BaseException as error:
                job.error = error
            job.done.set()
            del job

    # ---- the others ---------------------------------------------------------------------------

    @staticmethod
    def _key(rank: int) -> str:
        return f"alive/{rank}"

    def _sign(self, rank: int) -> str:
        key = self._key(rank)
        return self._store.get(key).decode() if self._store.check([key]) else ""

    def _tell(self, rank: int, words: str) -> None:
        told = {"rank": rank, "host": socket.gethostname(), "words": words}
        try:
            self._store.compare_set(ERROR, "", json.dumps(told))
        except RuntimeError:
            return

    def _look(self, seen: dict[int, tuple[str, float]], silence: float, what: str) -> None:
        """Raise RankFailed where another rank is known to have failed."""
        try:
            if self._store.check([ERROR]):
                told = json.loads(self._store.get(ERROR))
                raise RankFailed(f"rank {told['rank']} on {told['host']} {told['words']}")
            signs = {rank: self._sign(rank) for rank in range(self._size) if rank != self.rank}
        except RankFailed:
            raise
        except RuntimeError as error:
            raise RankFailed(
                f"expected to hear of the other ranks while waiting in {what}, but the process "
                f"that holds the group's store (rank 0, or torchrun's agent) is gone ({error})"
            ) from error
        now = time.monotonic()
        for rank, sign in signs.items():
            before, since = seen.get(rank, ("", now))
            seen[rank] = (sign, since if sign == before and rank in seen else now)
            words = ""
            if sign == ENDED:
                words = f"ended, and was expected in {what}; do all ranks make the same calls?"
            elif now - seen[rank][1] > silence:
                words = (
                    f"gave no sign of life for {silence:.0f} s, and was expected in {what}; was it "
                    "killed, for want of memory perhaps?"
                )
            if words:
                self._tell(rank, words)
                raise RankFailed(f"rank {rank} {words}")

    def _behind(self, error: BaseException, what: str) -> BaseException:
        """The error that another rank's failure left as a broken connection."""
        if not isinstance(error, RuntimeError):
            return error
        seen: dict[int, tuple[str, float]] = {}
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            try:
                self._look(seen, min(SILENCE, 4 * BEAT), what)
            except RankFailed as found:
                return found
            time.sleep(BEAT / 2)
        return RankFailed(f"expected an exchange with all ranks in {what}, but it failed: {error}")


class _Job:
    """Work for the thread that waits."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None


def _tell_what_is_not_caught(watch: Watch) -> None:
    """An error that ends the process is told to the others first."""
    before = sys.excepthook

    def hook(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        watch.tell(error)
        before(kind, error, traceback)

    sys.excepthook = hook
