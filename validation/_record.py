"""Verdicts and finished nets on disk, so that a run can be stopped and gone on with."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy
import scipy
import torch

from deepspec.storage.files import read_json, write_atomically
from validation._study import Profile, Verdict

RECORD = "verdict.json"
NETS = "nets"
T = TypeVar("T", bound="Result")

# Several studies share a net, and none of them knows where the others' folders are.
_place: ContextVar[Path | None] = ContextVar("place of finished nets", default=None)


@cache
def fingerprint() -> str:
    """Of the code of all three packages and of the versions they stand on."""
    digest = hashlib.sha256(f"{numpy.__version__} {scipy.__version__} {torch.__version__}".encode())
    root = Path(__file__).resolve().parent.parent
    for package in ("ccm", "deepspec", "validation"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def write_verdict(folder: Path, profile: Profile, verdict: Verdict, seconds: float) -> None:
    """Write a verdict in one move: what stands there is whole."""
    record = {
        "profile": profile,
        "code": fingerprint(),
        "passed": bool(verdict.passed),
        "finding": verdict.finding,
        "numbers": {key: float(value) for key, value in verdict.numbers.items()},
        "seconds": seconds,
    }
    record = json.loads(json.dumps(record))
    record["sha256"] = _sum(record)
    write_atomically(folder / RECORD, json.dumps(record, indent=1).encode())


def read_verdict(folder: Path, profile: Profile) -> tuple[Verdict, float] | None:
    """A verdict of this profile, as this very code wrote it; ``None`` if there is none."""
    try:
        record = read_json(folder / RECORD)
        known = (record["profile"], record["code"])
        verdict = Verdict(record["passed"], record["finding"], record["numbers"])
        seconds = float(record["seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = isinstance(verdict.passed, bool) and isinstance(verdict.finding, str)
    numbers = isinstance(verdict.numbers, dict) and all(
        isinstance(value, int | float) for value in verdict.numbers.values()
    )
    written = record.pop("sha256", None)
    if known != (profile, fingerprint()) or not (whole and numbers) or written != _sum(record):
        return None
    return verdict, seconds


class Result(Protocol):
    """What can be put on disk and read from there."""

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls: type[T], folder: Path) -> T: ...


@contextmanager
def keeping(out: Path | None) -> Iterator[None]:
    """Inside, :func:`kept` keeps what is finished in ``out``, if there is one."""
    token = _place.set(None if out is None else out / NETS)
    try:
        yield
    finally:
        _place.reset(token)


def kept(name: str, kind: type[T], work: Callable[[Path | None], T]) -> T:
    """What ``work`` returns, or returned in an earlier run of the same code.

    ``work`` is given a folder for its own checkpoints, which goes when it is done.
    """
    place = _place.get()
    if place is None:
        return work(None)
    folder = place / f"{name}-{fingerprint()[:16]}"
    try:
        return kind.load(folder)
    except (OSError, ValueError):  # there is none, or it was damaged
        shutil.rmtree(folder, ignore_errors=True)
    unfinished = folder.with_name(folder.name + "-unfinished")
    result = work(unfinished)
    result.save(folder)
    shutil.rmtree(unfinished, ignore_errors=True)
    return result


def _sum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
