"""Where tasks run: here, one after another, or on Dask. The one file that knows Dask.

Nothing that matters lives in an engine: what is done is on the disk (:mod:`store`), so a worker, a
scheduler or the driver may die at any moment and the same command goes on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from deepspec.experiments.worker import FAILED, Outcome, carry_out

Task = Mapping[str, Any]
ATTEMPTS = 3
AHEAD = 2  # tasks in flight for each worker: one that it does, one that waits there


class Engine(Protocol):
    """What a sweep needs of an engine."""

    @property
    def width(self) -> int:
        """How many tasks to have in flight."""

    def submit(self, task: Task) -> None:
        """Begin a task."""

    def finished(self) -> tuple[Task, Outcome]:
        """Wait for one of those begun."""


class Serial:
    """One task after another, in this process."""

    width = 1

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def finished(self) -> tuple[Task, Outcome]:
        task = self._waiting.popleft()
        return task, carry_out(task)


class Dask:
    """Tasks on the workers of a Dask scheduler."""

    def __init__(self, client: Any, resources: Mapping[str, float]) -> None:
        from distributed import as_completed

        self._client, self._resources = client, dict(resources)
        self._flying: dict[str, tuple[Task, int]] = {}
        self._done = as_completed()

    @property
    def width(self) -> int:
        """Grows and shrinks with the cluster; thousands of tasks never stand on the scheduler."""
        info = self._client.scheduler_info(n_workers=-1)
        return AHEAD * max(1, sum(worker["nthreads"] for worker in info["workers"].values()))

    def submit(self, task: Task) -> None:
        self._submit(task, 1)

    def _submit(self, task: Task, attempt: int) -> None:
        key = f"{task['kind']}-{task['name']}-{attempt}"
        future = self._client.submit(
            carry_out, dict(task), key=key, pure=False, resources=self._resources or None
        )
        self._flying[key] = (task, attempt)
        self._done.add(future)

    def finished(self) -> tuple[Task, Outcome]:
        """Wait for one; a task whose worker died is begun again, elsewhere.

        Raises
        ------
        ConnectionError
            If the scheduler is gone.
        """
        from distributed import KilledWorker

        while True:
            future = next(self._done)
            task, attempt = self._flying.pop(future.key)
            if future.status == "finished":
                try:
                    return task, future.result()
                except Exception as error:  # the connection broke while the result came
                    raise ConnectionError(GONE) from error
            why = future.exception() if future.status == "error" else None
            if why is None:  # cancelled, or lost, by nobody here
                raise ConnectionError(GONE)
            if attempt == ATTEMPTS:
                words = "its worker died" if isinstance(why, KilledWorker) else str(why)
                said = f"{words} {ATTEMPTS} times (out of memory, or killed?)"
                return task, {"state": FAILED, "error": said, "unrecorded": True, "seconds": 0.0}
            self._submit(task, attempt + 1)


GONE = (
    "expected the scheduler to stay, but it is gone; start it again and give the same command: "
    "finished runs are kept"
)


def has_dask() -> bool:
    """Whether the extra ``cluster`` is there."""
    return importlib.util.find_spec("distributed") is not None


@contextmanager
def engine(workers: int, scheduler: str | None, *, gpu: bool) -> Iterator[Engine]:
    """An engine for one sweep.

    Parameters
    ----------
    workers
        Processes on this machine; 0: none but this one.
    scheduler
        An address (``tcp://…``) or a scheduler file, of a cluster that runs already.
    gpu
        Ask for one GPU a task: workers were started with ``--resources GPU=1``.

    Raises
    ------
    ValueError
        If Dask is needed and not there.
    ConnectionError
        If the scheduler does not answer.
    """
    if scheduler is None and workers == 0:
        yield Serial()
        return
    if not has_dask():
        raise ValueError(
            "expected Dask for several workers or a scheduler, found none; "
            "pip install 'deepspec-ccm[cluster]', or leave --workers and --scheduler out"
        )
    from distributed import Client, LocalCluster

    resources = {"GPU": 1.0} if gpu else {}
    with contextlib.ExitStack() as stack:
        # Word of it comes from here, in one line. Dask gives its loggers levels of their own.
        for name in logging.root.manager.loggerDict:
            if name.split(".")[0] == "distributed":
                logging.getLogger(name).setLevel(logging.CRITICAL)
        if scheduler is None:
            cluster: Any = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    resources=resources or None,
                )
            )
            client = stack.enter_context(Client(cluster))
        else:
            where: dict[str, Any] = (
                {"scheduler_file": scheduler} if Path(scheduler).is_file() else {}
            )
            try:
                client = stack.enter_context(
                    Client(None if where else scheduler, timeout=20, **where)
                )
            except (OSError, ValueError, TimeoutError) as error:
                raise ConnectionError(
                    f"expected a Dask scheduler at {scheduler}, but {error}; give its address "
                    "(tcp://host:8786) or its scheduler file"
                ) from error
        yield Dask(client, resources)
