"""Verdicts on disk, so that a run of many studies can be stopped and gone on with."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path

import numpy
import scipy
import torch

from validation._study import Profile, Verdict

RECORD = "verdict.json"


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
    part = folder / f".{RECORD}.part"
    part.write_text(json.dumps(record, indent=1))
    os.replace(part, folder / RECORD)


def read_verdict(folder: Path, profile: Profile) -> tuple[Verdict, float] | None:
    """A verdict of this profile that this very code wrote; ``None`` if there is none."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or (record.get("profile"), record.get("code")) != (
        profile,
        fingerprint(),
    ):
        return None
    return Verdict(record["passed"], record["finding"], record["numbers"]), record["seconds"]
