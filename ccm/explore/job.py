"""The asker's side of :mod:`ccm.explore.draws`: start, look, end."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]


class Job:
    """One request in a process of its own. Moving on is :meth:`cancel`, which never waits long.

    Examples
    --------
    >>> request = dict(task="fit", dim=4, num_classes=2, snr=1.0, per_class=50, seed=0)
    >>> job = Job(request)
    >>> found = job.wait()
    >>> 0 < found[-1]["fitted_alpha"] <= 0.5, job.finished
    (True, True)
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ccm.explore.draws"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: IO[str] = self._process.stdin
        self._stdout: IO[str] = self._process.stdout
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.finished = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._stdin.write(json.dumps(request) + "\n")
        self._stdin.flush()

    def _read(self) -> None:
        answered = False
        for line in self._stdout:
            message = json.loads(line)
            answered = answered or "stage" not in message
            self._queue.put(message)
        if self._process.wait() != 0 or not answered:
            self._queue.put({"error": "the computation ended before its result (out of memory?)"})
        self._queue.put(None)

    def poll(self) -> list[dict[str, Any]]:
        """The messages that came since the last look; never waits."""
        found: list[dict[str, Any]] = []
        while not self.finished and not self._queue.empty():
            self._take(found)
        return found

    def wait(self) -> list[dict[str, Any]]:
        """All messages to the end."""
        found: list[dict[str, Any]] = []
        while not self.finished:
            self._take(found)
        return found

    def _take(self, found: list[dict[str, Any]]) -> None:
        message = self._queue.get()
        if message is None:
            self._close()
        else:
            found.append(message)

    def cancel(self) -> None:
        """End the process; nothing more is reported."""
        if not self.finished:
            self._process.kill()
            self._close()

    def _close(self) -> None:
        self.finished = True
        self._process.wait()
        self._reader.join()
        self._stdin.close()
        self._stdout.close()
