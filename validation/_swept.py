"""The sweeps of the studies of dynamics and regimes, done once and shared by them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from deepspec.experiments import Plan, Sweep, run_sweep
from deepspec.experiments.reading import plan_of
from deepspec.report.dynamics import History
from validation._study import Profile

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def swept(plan: Plan) -> Sweep:
    """A plan done in this process, its folder kept until that ends."""
    _FOLDERS.append(tempfile.TemporaryDirectory())
    folder = Path(_FOLDERS[-1].name)
    summary = run_sweep(plan, folder)
    assert not summary.failures, "; ".join(map(str, summary.failures))
    return Sweep(folder)


@cache
def trajectories(profile: Profile) -> list[History]:
    """Perceptrons on MNIST-1D, and in full on the digits too, over epochs and n per class."""
    quick = profile == "quick"
    plan: dict[str, Any] = {
        "grid": {
            "data": ["mnist1d"] if quick else ["mnist1d", "digits"],
            "net": [{"name": "mlp", "widths": [32, 32] if quick else [256, 256]}],
            "per_class": [13, 40] if quick else [13, 26, 51, 100],
            "learning_rate": [0.05] if quick else [0.1, 0.03, 0.01],
            "seed": [0, 1] if quick else [0, 1, 2],
        },
        "training": {
            "epochs": 60 if quick else 200,
            "snapshots": [3, 15] if quick else "log:8",
        },
        "analysis": {"hessian": False, "steps": 40 if quick else 100},
    }
    return [History.of(runs) for runs in swept(plan_of(plan)).groups().values()]


@cache
def regimes(profile: Profile) -> Sweep:
    """Widths × n per class, every claim judged early and late in training."""
    quick = profile == "quick"
    widths = (16, 256) if quick else (16, 32, 64, 128, 256, 512, 1024)
    plan: dict[str, Any] = {
        "grid": {
            "data": ["digits"] if quick else ["digits", "mnist1d"],
            "net": [{"name": "mlp", "widths": [width, width]} for width in widths],
            "per_class": [13, 40] if quick else [13, 26, 51, 100],
            "learning_rate": [0.05],
            "seed": [0] if quick else [0, 1, 2],
        },
        "training": {"epochs": 60, "snapshots": [9]},
        "analysis": {
            "hessian": False,
            "claims": "last" if quick else "all",
            "steps": 30 if quick else 60,
            "draws": 2 if quick else 5,
            "exact_up_to": 1500 if quick else 4000,
        },
    }
    return swept(plan_of(plan))
