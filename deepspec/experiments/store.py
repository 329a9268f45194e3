"""What is done, on disk: a folder a run, named by its settings, that appears whole or not at all.

    plan.json               what the sweep is
    trained/<hash>/         run.json (settings, how it ended), training.json, snapshots/
    analysed/<hash>/        run.json (settings), epoch-000060/, and so on
    failed/<hash>.json      settings and the error

Names that begin with a dot are unfinished. Nothing here holds a time or a name of a machine, so
that a sweep that was disturbed ends in the same bytes as one that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deepspec.storage.files import read_json, sync_folder, write_atomically

TRAINED, ANALYSED, FAILED, LOCKS = "trained", "analysed", "failed", ".locks"
PLAN, RUN, DRIVER = "plan.json", "run.json", "driver"
Record = dict[str, Any]


class Store:
    """The folder of one sweep."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def make(self) -> None:
        """See that it can be written to.

        Raises
        ------
        OSError
            If not.
        """
        try:
            for name in (TRAINED, ANALYSED, FAILED, LOCKS):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"expected a folder that can be written to at {self.folder} ({error.strerror}); "
                "choose another"
            ) from error

    def place(self, kind: str, name: str) -> Path:
        """Where a finished run is."""
        return self.folder / kind / name

    def unfinished(self, kind: str, name: str) -> Path:
        """Where a run grows; what an earlier worker left there is gone on with."""
        place = self.folder / kind / f".{name}"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def finish(self, kind: str, name: str, record: Record) -> None:
        """Give a run its name, once all of it is on the disk.

        Each of its files was written there whole, and with its name; this is the last of them.
        """
        made = self.folder / kind / f".{name}"
        write_atomically(made / RUN, _lines(record))
        os.replace(made, self.place(kind, name))
        sync_folder(self.folder / kind)

    def record(self, kind: str, name: str) -> Record | None:
        """How a run ended: None where it has not."""
        try:
            return read_json(self.place(kind, name) / RUN)
        except FileNotFoundError:
            return None

    def fail(self, kind: str, name: str, settings: Record, error: str) -> None:
        """Note an error; what was half made is thrown away."""
        shutil.rmtree(self.folder / kind / f".{name}", ignore_errors=True)
        record = {"kind": kind, "settings": settings, "error": error}
        write_atomically(self.folder / FAILED / f"{name}.json", _lines(record))

    def failure(self, name: str) -> Record | None:
        """The note on a run that failed."""
        try:
            return read_json(self.folder / FAILED / f"{name}.json")
        except FileNotFoundError:
            return None

    def forgive(self, name: str) -> None:
        """Forget that a run failed."""
        (self.folder / FAILED / f"{name}.json").unlink(missing_ok=True)

    def write_plan(self, entries: Record) -> None:
        """Say what the sweep is."""
        write_atomically(self.folder / PLAN, _lines(entries))

    def read_plan(self) -> Record:
        """What the sweep is.

        Raises
        ------
        FileNotFoundError
            If the folder is not one of a sweep.
        """
        try:
            return read_json(self.folder / PLAN)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(
                f"expected the folder of a sweep at {self.folder}, found no {PLAN} there; make one "
                "with deepspec sweep PLAN --out FOLDER"
            ) from error

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Within it nobody else drives this sweep.

        Raises
        ------
        BlockingIOError
            If somebody does already.
        """
        path = self.folder / LOCKS / DRIVER
        with open(path, "a+") as file:
            try:
                _lock(file.fileno(), wait=False)
            except BlockingIOError as error:
                file.seek(0)
                raise BlockingIOError(
                    f"expected to drive the sweep in {self.folder} alone, but {file.read().strip()}"
                    " does; wait for it, or stop it"
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield
            file.truncate(0)

    @contextmanager
    def working(self, name: str) -> Iterator[None]:
        """Within it nobody else works on this run; waits for a worker that was given up for lost.

        The system lets go of the lock when a process ends, however it ends.
        """
        path = self.folder / LOCKS / name
        with open(path, "w") as file:
            _lock(file.fileno(), wait=True)
            yield
            with suppress(OSError):
                path.unlink()


def _lock(descriptor: int, *, wait: bool) -> None:
    import fcntl  # there is none on Windows, where everything else of the package works

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lines(entries: Record) -> bytes:
    return (json.dumps(entries, indent=1, sort_keys=True) + "\n").encode()
