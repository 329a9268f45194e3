"""A folder put in the place of another in one step, or so that a kill loses neither."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from deepspec.storage.files import sync_folder

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def resolved(target: Path) -> Path:
    """The path without links: what a link points to is replaced, not the link.

    Raises
    ------
    OSError
        If links go in a circle, or it is the root of the file system.
    """
    try:
        path = target.resolve()
    except RuntimeError as error:  # Python before 3.13
        raise OSError(f"expected a path, but the links of {target} go in a circle") from error
    if not path.name:
        raise OSError(f"expected a folder's name, got {target}; choose another name")
    return path


def put_in_place(made: Path, target: Path) -> None:
    """Give the folder ``made`` the name ``target``; an old one is deleted once that is done."""
    for path in [*made.rglob("*"), made]:
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if not target.exists():
        os.replace(made, target)
        sync_folder(target.parent)
        return
    if exchange(made, target):
        sync_folder(target.parent)
        shutil.rmtree(made)
        return
    old = aside(target)
    os.replace(target, old)
    try:
        os.replace(made, target)
    finally:
        recover(target)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step of the file system; False where it has no such step."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # a C library before 2018
        return False
    return rename(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0


def aside(target: Path) -> Path:
    """Where the old folder is while the new one gets its name."""
    return target.with_name(f".{target.name}.being-replaced")


def recover(target: Path) -> bool:
    """Put an old folder back that was moved aside for a new one which never came, if there is one.

    Where the new one did come, what was moved aside is deleted.
    """
    old = aside(target)
    if old.is_symlink() or not old.is_dir():
        return False
    if target.exists():
        shutil.rmtree(old)
        return False
    os.replace(old, target)
    return True
