"""What every study shares: the claim it tests, and the verdict it returns."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import validation

Profile = Literal["quick", "full"]


@dataclass(frozen=True)
class Verdict:
    """What a study found.

    ``passed`` answers the study's claim as its tolerance states it; ``finding`` says in one
    sentence what was measured, with its numbers; ``numbers`` holds them for scripts.
    """

    passed: bool
    finding: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One claim of a paper (or of our theory), and the experiment that could refute it.

    ``run(profile, folder)`` does the work and returns a :class:`Verdict`; figures go into
    ``folder`` when one is given.
    """

    name: str
    claim: str
    source: str
    prediction: str
    tolerance: str
    run: Callable[[Profile, Path | None], Verdict]


def all_studies() -> dict[str, Study]:
    """Every module of this package that defines ``STUDY``, by the study's name."""
    found: dict[str, Study] = {}
    for module in pkgutil.iter_modules(validation.__path__):
        if not module.name.startswith("_"):
            study = importlib.import_module(f"validation.{module.name}").STUDY
            found[study.name] = study
    return dict(sorted(found.items()))
