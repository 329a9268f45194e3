"""Results of long work, one file that survives a kill at any instant."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

LARGEST = 2**28  # bytes of a file to resume from


class ResumeError(ValueError):
    """The file to resume from does not belong to this work."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that at any instant either the old or the whole new one is there.

    A temporary file beside it takes the content and then its name; on return both are on the disk.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "a.txt", "done")
    ...     [(p.name, p.read_text()) for p in Path(folder).iterdir()]
    [('a.txt', 'done')]
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_regular(path: Path) -> str:
    """The text of a regular file: no link, no pipe that would be waited for, nothing endless.

    Raises
    ------
    ValueError
        If it is something else, too large, or no UTF-8.
    OSError
        If it cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if path.is_symlink():
        raise ValueError("it is a link")
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise ValueError(f"it is no regular file of at most {LARGEST} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size).decode()
    finally:
        os.close(descriptor)


class Journal:
    """Finished units of work by key, in one JSON file beside the configuration they belong to.

    The file is rewritten atomically after every unit, so that a kill loses at most the unit
    under way. Floats survive exactly (JSON holds their shortest exact form), and the file holds a
    sum of its content, so that a number which was changed since is noticed.

    Parameters
    ----------
    path
        The file; made with the first unit, read if it exists. None keeps the units in memory.
    configuration
        What the units depend on; JSON values.
    columns
        The names of every unit's numbers.

    Raises
    ------
    ResumeError
        If the file is not a journal or was changed, a unit in it has other columns or values that
        are no numbers, or its configuration differs: the message names where.

    Examples
    --------
    >>> journal = Journal(None, {"seed": 0}, {"value"})
    >>> journal.record("0", {"value": 1.5})
    >>> journal.get("0")
    {'value': 1.5}
    """

    def __init__(
        self, path: Path | None, configuration: Mapping[str, Any], columns: Collection[str]
    ) -> None:
        self.path = path
        self.columns = frozenset(columns)
        self.configuration = json.loads(json.dumps(configuration))
        self._units: dict[str, dict[str, float]] = {}
        if path is not None and os.path.lexists(path):
            self._units = self._read(path)

    def get(self, key: str) -> dict[str, float] | None:
        """The unit's result, or None if it has not been finished."""
        return self._units.get(key)

    def record(self, key: str, result: dict[str, float]) -> None:
        """Keep a finished unit; on return it is on the disk."""
        self._units[key] = result
        if self.path is not None:
            content: dict[str, Any] = {
                "configuration": self.configuration,
                "units": self._units,
            }
            content["sha256"] = _sum(content)
            write_atomically(self.path, json.dumps(content, indent=0))

    def _read(self, path: Path) -> dict[str, dict[str, float]]:
        try:
            content = json.loads(read_regular(path))
            found, units = content["configuration"], content["units"]
            written = content.pop("sha256", None)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ResumeError(f"{path} is not a file to resume from; delete or move it") from error
        if not (isinstance(found, dict) and isinstance(units, dict)):
            raise ResumeError(f"{path} is not a file to resume from; delete or move it")
        keys = sorted({*found, *self.configuration})
        different = [
            f"{key} was {found.get(key)!r} and is now {self.configuration.get(key)!r}"
            for key in keys
            if found.get(key) != self.configuration.get(key)
        ]
        if different:
            raise ResumeError(
                f"{path} was made with another configuration: {'; '.join(different)}. Use the old "
                "settings to resume, or another output, or delete the file to start again"
            )
        for key, unit in units.items():
            if not self._is_unit(unit):
                raise ResumeError(
                    f"{path} is damaged: unit {key!r} does not hold the {len(self.columns)} "
                    "numbers of a finished one; delete the file to start again"
                )
        if written != _sum(content):
            raise ResumeError(
                f"{path} is damaged, or another version wrote it: its sum is not that of what it "
                "holds; delete the file to start again"
            )
        return units

    def _is_unit(self, unit: object) -> bool:
        return (
            isinstance(unit, dict)
            and unit.keys() == self.columns
            and all(type(value) in (int, float) for value in unit.values())
        )


def _sum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
