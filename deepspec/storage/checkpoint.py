"""State on disk that survives any interruption: a JSON manifest beside safetensors arrays.

A folder holds ``manifest.json`` and the one arrays file that it names, by content. The arrays are
written first and the manifest is then replaced in one step of the file system, so whatever
moment a process is killed at, the folder holds the previous state or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

MANIFEST = "manifest.json"
TRIAL = "can-this-be-written"


class CheckpointMismatch(ValueError):
    """A checkpoint that belongs to another operator, other data or another configuration."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that a reader sees the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_state(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Replace the state in ``folder`` (made if missing) by this one, atomically.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "state"
    >>> save_state(folder, {"kind": "example"}, {"x": torch.ones(2)})
    >>> manifest, arrays = load_state(folder)
    >>> manifest["kind"], arrays["x"]
    ('example', tensor([1., 1.]))
    """
    folder.mkdir(parents=True, exist_ok=True)
    flat = {name: array.detach().cpu().contiguous().clone() for name, array in arrays.items()}
    content = safetensors.torch.save(flat)
    digest = hashlib.sha256(content).hexdigest()
    name = f"arrays-{digest[:16]}.safetensors"
    write_atomically(folder / name, content)
    named = {**manifest, "arrays": name, "sha256": digest}
    write_atomically(folder / MANIFEST, json.dumps(named, indent=1).encode())
    for stale in folder.iterdir():
        ours = stale.match("arrays-*.safetensors") or stale.match(".*.part")
        if ours and stale.name != name and stale.is_file():
            stale.unlink(missing_ok=True)


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The manifest and the arrays (on the CPU) that :func:`save_state` left in ``folder``.

    Raises
    ------
    FileNotFoundError
        If there is no manifest in the folder, or the arrays it names are gone.
    ValueError
        If the manifest is damaged, or the arrays are not the ones it was written for.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"expected a saved state in {folder}, found no {MANIFEST} there")
    try:
        manifest = json.loads(path.read_text())
        arrays_path, digest = folder / manifest["arrays"], manifest["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    if not arrays_path.is_file():
        raise FileNotFoundError(f"expected {arrays_path}, which {path} names; it is gone")
    content = arrays_path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"{arrays_path} is damaged: its SHA-256 is not the one in {path}; delete the folder"
        )
    # Cloned: arithmetic on CPU may depend on the alignment of memory, and torch's own is fixed.
    loaded = {name: array.clone() for name, array in safetensors.torch.load(content).items()}
    return manifest, loaded


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a manifest without what was written there."""
    return ValueError(
        f"{path} was written by another version or is damaged ({error!r}); delete the folder"
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
    """

    path: Path
    every: float
    configuration: Mapping[str, Any]
    tolerance: float = 0.0
    plan: Callable[[], Mapping[str, Any]] = dict
    follow: Callable[[Mapping[str, Any]], None] = field(default=lambda plan: None)
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
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / TRIAL, b"")
            (self.path / TRIAL).unlink()
        except OSError as error:
            raise OSError(
                f"expected a checkpoint's folder that can be written to, got {self.path} "
                f"({error}); give another path"
            ) from error
        if not (self.path / MANIFEST).is_file():
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
        self.follow(plan)
        return progress, arrays

    def save(self, progress: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
        """Save now."""
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


def as_tensor(values: list[float]) -> Tensor:
    """A list of Python numbers, kept to the bit."""
    return torch.tensor(values, dtype=torch.float64)
