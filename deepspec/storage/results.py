"""Results on disk: one way to save and load every dataclass, and folders that appear whole."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from deepspec.arguments import as_path
from deepspec.storage.checkpoint import MANIFEST, damaged, load_state, save_state
from deepspec.storage.files import shortened
from deepspec.storage.packing import pack, unpack
from deepspec.storage.replacing import put_in_place, recover, resolved

RESULT = "result"  # the entry of the manifest with the fields
T = TypeVar("T")
R = TypeVar("R", bound="Saved")


def save_result(folder: Path, result: Any, extra: Mapping[str, Any] | None = None) -> None:
    """Write a dataclass as a manifest and arrays; ``extra`` entries stand beside it.

    The manifest says the ``kind`` (the class's name), the library's version and the format.

    Raises
    ------
    FileExistsError
        If the folder holds a result of another kind, or something else under our name.
    """
    kind = type(result).__name__
    if (folder / MANIFEST).exists():
        try:
            found: object = load_state(folder)[0].get("kind")
        except (OSError, ValueError):
            found = "something else"
        if found != kind:
            raise FileExistsError(
                f"expected a new folder or an earlier {kind}, but {folder} holds "
                f"{shortened(found)}; choose another name"
            )
    arrays: dict[str, Tensor] = {}
    tree = pack(result, RESULT, arrays)
    save_state(folder, {"kind": kind, **(extra or {}), RESULT: tree}, arrays)


def load_result(kind: type[T], folder: Path) -> tuple[T, dict[str, Any]]:
    """The result of this class in ``folder``, and the entries that stand beside it.

    Raises
    ------
    ValueError
        If the folder holds something else, or what another version wrote, or was changed since.
    OSError
        If it cannot be read.
    """
    manifest, arrays = load_state(folder)
    found = manifest.pop("kind", None)
    if found != kind.__name__:
        raise ValueError(f"expected a saved {kind.__name__} in {folder}, found {shortened(found)}")
    try:
        if RESULT not in manifest:
            raise ValueError(f"expected an entry {RESULT!r}, found none")
        tree = manifest.pop(RESULT)
        return unpack(kind, tree, arrays, RESULT), manifest
    except ValueError as error:
        raise damaged(folder / MANIFEST, error) from error


class Saved:
    """Gives a frozen dataclass :meth:`save` and :meth:`load`: all of its fields, to the bit.

    Fields are numbers, text, tensors, lists, tuples, dicts and such dataclasses; annotations are
    held against what is read, shapes and dtypes of tensors included.

    >>> import tempfile
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Count(Saved):
    ...     matvecs: int
    >>> folder = Path(tempfile.mkdtemp()) / "count"
    >>> Count(matvecs=3).save(folder)
    >>> Count.load(folder)
    Count(matvecs=3)
    """

    def save(self, folder: str | Path) -> None:
        """Write ``manifest.json`` and the arrays (safetensors) into a folder, all or nothing.

        The folder is made if it is missing; an earlier result of the same kind is replaced.

        Raises
        ------
        FileExistsError
            If the folder holds a result of another kind.
        """
        save_result(as_path(folder, "the folder"), self)

    @classmethod
    def load(cls: type[R], folder: str | Path) -> R:
        """Read what :meth:`save` wrote, onto the CPU.

        Raises
        ------
        ValueError
            If the folder holds something else, or what another version wrote, or was changed
            since it was written.
        """
        return load_result(cls, as_path(folder, "the folder"))[0]


@contextmanager
def new_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which appears under its name only once all in it is written.

    To be entered before the work, so that a place that cannot be written costs none. An old
    folder is exchanged for the new one in one step where the system can; elsewhere it has another
    name for a moment, and if just then the process is killed, the next call puts it back.

    Raises
    ------
    FileExistsError
        If the name is taken and ``overwrite`` is false. With it, the old folder is replaced
        once the new one is complete.
    OSError
        If nothing can be written there.

    Warns
    -----
    UserWarning
        If an earlier run was killed while it replaced the folder, and its old one was put back.
    """
    target = resolved(target)
    if recover(target):
        warnings.warn(
            f"a run was stopped while it replaced {target}; the old folder is back there",
            stacklevel=3,
        )
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"expected a new folder, but {target} exists; choose another name, or replace it "
            "with overwrite=True (in the shell: --overwrite)"
        )
    if target.exists() and not (target / MANIFEST).is_file():
        raise FileExistsError(
            f"expected {target} to be a folder that was written here, with a {MANIFEST}, but it is "
            "something else, and is left alone; choose another name"
        )
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OSError(
            f"expected to make a folder {target}, but {error.filename} cannot be written "
            f"({error.strerror}); choose another place"
        ) from error
    made.chmod(0o755)
    try:
        yield made
        put_in_place(made, target)
    finally:
        if made.exists():
            shutil.rmtree(made)
        for parent in missing:
            with suppress(OSError):  # not empty: it was needed
                parent.rmdir()
