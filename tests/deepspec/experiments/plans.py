"""A plan that takes a second, and what a folder holds."""

from pathlib import Path
from typing import Any

from deepspec.experiments.plan import Plan
from deepspec.experiments.reading import plan_of


def tiny(**changes: Any) -> Plan:
    """Two learning rates, of which one diverges, on digits; entries of [grid] may be changed."""
    grid = {
        "data": ["digits"],
        "net": [{"name": "mlp", "widths": [5]}],
        "per_class": [3],
        "learning_rate": [0.1, 0.02],
        "seed": [0],
    }
    tables = {name: changes.pop(name, {}) for name in ("training", "analysis")}
    return plan_of(
        {
            "grid": grid | changes,
            "training": {"epochs": 3, "snapshots": [0]} | tables["training"],
            "analysis": {"steps": 5, "hessian": False} | tables["analysis"],
        }
    )


def content(folder: Path) -> dict[str, bytes]:
    """Every finished file, by name; what begins with a dot is not finished."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
