"""Single files: written whole or not at all, read only where they are what they should be.

What is read here may come from someone else. So a name in a manifest is never a path; a file is
opened once, without following a link and without waiting for a pipe's other end, and its kind and
size are looked at before its content.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import torch

from deepspec.memory import free_memory

LARGEST_MANIFEST = 64 * 2**20  # bytes
DEEPEST = 64  # levels of JSON; what is written here has about ten
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9]{1,15})?")


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a reader sees the old file or the new one, whole.

    On return it is on the disk, under its name.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, too."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def plain_name(name: object, what: str) -> str:
    """``name``, if it can name a file in a folder and nothing else.

    Letters, digits, "_" and "-", and one ending: no separator, no "..", no hidden file.

    Raises
    ------
    ValueError
        If it has anything else in it.

    >>> plain_name("train-verdicts.png", "a figure")
    'train-verdicts.png'
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"expected {what} to be named in letters, digits, '-' and '_', got {shortened(name)}"
        )
    return name


def read_regular(path: Path, largest: int | None = None) -> bytes:
    """The content of a regular file that is not above ``largest`` bytes, by default free memory.

    Raises
    ------
    OSError
        If it cannot be opened, or is a link, or something else that is no regular file.
    ValueError
        If it is larger.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink():
        raise OSError(f"expected a regular file at {path}, found a link; put the file itself there")
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"expected a regular file at {path}, found another kind of thing")
        limit = free_memory(torch.device("cpu")) if largest is None else largest
        if status.st_size > limit:
            raise ValueError(
                f"expected at most {limit:,} bytes in {path}, found {status.st_size:,}"
            )
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, its size and depth bounded; repeated names are refused.

    Raises
    ------
    OSError
        As :func:`read_regular`.
    ValueError
        If it is something else.
    """
    text = read_regular(path, LARGEST_MANIFEST).decode("utf-8")
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds no JSON object but {shortened(found)}")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return found
    raise ValueError("it is nested too deeply")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has two entries of one name")
    return found


def shortened(value: object, length: int = 60) -> str:
    """``repr``, cut: what a file holds may be long.

    >>> shortened("a" * 100, 8)
    "'aaaaaa…"
    """
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"
