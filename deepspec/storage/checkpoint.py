"""State on disk that survives any interruption: a JSON manifest beside safetensors arrays.

A folder holds ``manifest.json`` and the one arrays file that it names, by content. The arrays are
written first and the manifest is then replaced in one step of the file system, so whatever
moment a process is killed at, the folder holds the previous state or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor

from deepspec.engine.distributed import ALONE, Group
from deepspec.storage.files import read_json, read_regular, shortened, write_atomically

MANIFEST = "manifest.json"
TRIAL = "can-this-be-written"
FORMAT = 2  # 1 had neither this number nor a sum of the manifest itself
OWN = {"format", "library", "arrays", "sha256", "manifest_sha256"}
ARRAYS_FILE = re.compile(r"arrays-[0-9a-f]{16}\.safetensors")


class CheckpointMismatch(ValueError):
    """A checkpoint that belongs to another operator, other data or another configuration."""


def save_state(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Replace the state in ``folder`` (made if missing) by this one, atomically.

    Raises
    ------
    ValueError
        If an entry of the manifest has one of the names that are this module's own.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "state"
    >>> save_state(folder, {"kind": "example"}, {"x": torch.ones(2)})
    >>> manifest, arrays = load_state(folder)
    >>> manifest, arrays["x"]
    ({'kind': 'example'}, tensor([1., 1.]))
    """
    if OWN & manifest.keys():
        raise ValueError(f"expected other entries than {', '.join(sorted(OWN & manifest.keys()))}")
    folder.mkdir(parents=True, exist_ok=True)
    flat = {name: array.detach().cpu().contiguous().clone() for name, array in arrays.items()}
    content = safetensors.torch.save(flat)
    digest = hashlib.sha256(content).hexdigest()
    name = f"arrays-{digest[:16]}.safetensors"
    write_atomically(folder / name, content)
    own = {"format": FORMAT, "library": _library(), "arrays": name, "sha256": digest}
    entries = json.loads(json.dumps({**manifest, **own}))
    entries["manifest_sha256"] = _digest(entries)
    write_atomically(folder / MANIFEST, json.dumps(entries, indent=1).encode())
    for stale in folder.iterdir():
        ours = stale.match("arrays-*.safetensors") or stale.match(".*.part")
        if ours and stale.name != name and stale.is_file():
            stale.unlink(missing_ok=True)


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The manifest and the arrays (on the CPU) that :func:`save_state` left in ``folder``.

    Nothing outside of the folder is read, nothing but regular files, and no entry or array that
    was changed since gets through: the manifest holds the SHA-256 of the arrays and of itself.

    Raises
    ------
    FileNotFoundError
        If there is no manifest in the folder, or the arrays it names are gone.
    ValueError
        If the manifest is damaged, or the arrays are not the ones it was written for.
    OSError
        If one of the two files cannot be read.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise FileNotFoundError(f"expected a saved state in {folder}, found no {MANIFEST} there")
    try:
        manifest = read_json(path)
        if manifest.get("format") != FORMAT:
            raise ValueError(f"format {shortened(manifest.get('format'))}, {FORMAT} is read here")
        name, digest = manifest["arrays"], manifest["sha256"]
        written = manifest.pop("manifest_sha256")
        if not (isinstance(name, str) and ARRAYS_FILE.fullmatch(name)):
            raise ValueError(f"the arrays' file cannot be {shortened(name)}")
        if written != _digest(manifest):
            raise ValueError("an entry was changed after it was written")
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    arrays_path = folder / name
    if not os.path.lexists(arrays_path):
        raise FileNotFoundError(f"expected {arrays_path}, which {path} names; it is gone")
    content = read_regular(arrays_path)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"{arrays_path} is damaged: its SHA-256 is not the one in {path}; delete the folder"
        )
    try:
        # Cloned: arithmetic on CPU may depend on the alignment of memory, and torch's own is fixed.
        loaded = {name: array.clone() for name, array in safetensors.torch.load(content).items()}
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{arrays_path} is damaged: it holds no safetensors ({error}); delete the folder"
        ) from error
    return {name: value for name, value in manifest.items() if name not in OWN}, loaded


def _library() -> str:
    try:
        return f"deepspec {metadata.version('deepspec-ccm')}"
    except metadata.PackageNotFoundError:
        return "deepspec, run without being installed"


def _digest(entries: Mapping[str, Any]) -> str:
    """Of what a manifest says, whatever the white space; the order of entries counts."""
    return hashlib.sha256(json.dumps(entries, separators=(",", ":")).encode()).hexdigest()


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a manifest without what was written there."""
    reason = f"no {error}" if isinstance(error, KeyError) else f"{error}"
    return ValueError(
        f"{path} was written by another version or is damaged ({reason}); delete the folder"
    )


def differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], relative: float
) -> list[str]:
    """Each entry in which two configurations differ, in words.

    >>> differences({"steps": 8, "seed": 0}, {"steps": 9, "seed": 0}, 0.0)
    ['steps: 8 here, 9 there']
    """
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        here, there = expected.get(name, "nothing"), found.get(name, "nothing")
        if isinstance(here, float) and isinstance(there, float):
            same = abs(here - there) <= relative * max(abs(here), abs(there))
        else:
            same = here == there
        if not same:
            lines.append(f"{name}: {here} here, {there} there")
    return lines


@dataclass
class Checkpoint:
    """One folder that a run saves its state to now and then, and goes on from.

    Parameters
    ----------
    path
        The folder.
    every
        Seconds between two saves; 0 saves at every opportunity.
    configuration
        Everything the result depends on: the operator's fingerprint, the estimator's arguments.
    tolerance
        Relative, for entries that are floats.
    plan, follow
        Ask for the choices that change the rounding, to be saved; make saved ones again.
    group
        The processes that run together: the first one reads and writes, for all of them.
    """

    path: Path
    every: float
    configuration: Mapping[str, Any]
    tolerance: float = 0.0
    plan: Callable[[], Mapping[str, Any]] = dict
    follow: Callable[[Mapping[str, Any]], None] = field(default=lambda plan: None)
    group: Group = ALONE
    _last: float = field(default_factory=time.monotonic, init=False)

    def load(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The state of the run so far, or None where there is none yet.

        Raises
        ------
        CheckpointMismatch
            If the state was left by another run; the differences are named.
        ValueError
            If the manifest is damaged.
        OSError
            If nothing can be written to the folder: said now, not when the work is done.
        """
        state = self.group.state_from_first(self._load)
        if state is None:
            return None
        (progress, plan), arrays = state
        self.follow(plan)
        return progress, arrays

    def _load(self) -> tuple[Any, dict[str, Tensor]] | None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / TRIAL, b"")
            (self.path / TRIAL).unlink()
        except OSError as error:
            raise OSError(
                f"expected a checkpoint's folder that can be written to, got {self.path} "
                f"({error}); give another path"
            ) from error
        if not os.path.lexists(self.path / MANIFEST):
            return None
        manifest, arrays = load_state(self.path)
        try:
            found, plan = dict(manifest["configuration"]), dict(manifest["plan"])
            progress = dict(manifest["progress"])
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(self.path / MANIFEST, error) from error
        lines = differences(self.configuration, found, self.tolerance)
        if lines:
            raise CheckpointMismatch(
                f"the checkpoint in {self.path} is of another run ({'; '.join(lines)}); "
                "give another path, or delete it to start anew"
            )
        return (progress, plan), arrays

    @contextmanager
    def restoring(self) -> Iterator[None]:
        """Around what takes a loaded state up: what does not fit there is a damaged checkpoint.

        Raises
        ------
        ValueError
            For whatever was raised inside because the state is not what it should be.
        """
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise damaged(self.path / MANIFEST, error) from error

    def save(self, progress: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
        """Save now."""
        if self.group.rank:
            return
        content = {
            "configuration": dict(self.configuration),
            "plan": dict(self.plan()),
            "progress": dict(progress),
        }
        save_state(self.path, content, arrays)
        self._last = time.monotonic()

    def offer(self, state: Callable[[], tuple[Mapping[str, Any], Mapping[str, Tensor]]]) -> None:
        """Save if it is time; ``state`` is asked only then."""
        if time.monotonic() - self._last >= self.every:
            self.save(*state())


def require(holds: bool, what: str) -> None:
    """Said of a state that is taken up: ``what`` has to be so.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not holds:
        raise ValueError(f"{what} is not what was saved")


def whole(value: object, what: str, least: int, most: int | None = None) -> int:
    """A whole number of a state, within its range.

    Raises
    ------
    ValueError
        If it is not.
    """
    fits = type(value) is int and value >= least and (most is None or value <= most)
    require(fits, f"{what} ({shortened(value)})")
    return cast(int, value)


def finite(array: Tensor, what: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An array of a state on the device of ``like``, held against its shape and dtype.

    Raises
    ------
    ValueError
        If they differ, or an entry is NaN or infinite.
    """
    fits = array.shape == shape and array.dtype == like.dtype
    require(fits and bool(torch.isfinite(array).all()), what)
    return array.to(like.device)


def as_tensor(values: list[float]) -> Tensor:
    """A list of Python numbers, kept to the bit."""
    return torch.tensor(values, dtype=torch.float64)
