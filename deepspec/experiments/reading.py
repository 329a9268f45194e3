"""A sweep's plan from TOML, with what is wrong in it said before any work."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from deepspec.experiments.plan import AXES, AnalysisPlan, Plan, TrainingPlan, canonical
from deepspec.zoo.libraries import unknown
from deepspec.zoo.registry import DATASETS, SAMPLE_SIZES, known_network, learning_rates, network

SHIPPED = Path(__file__).with_name("plans")
TABLES = ("grid", "training", "analysis")


def read_plan(path: str | Path) -> Plan:
    """A plan from a TOML file, or one that ships by its name (``demo``, ``papers``).

    Raises
    ------
    ValueError
        If something in it is wrong: the key is named, with the nearest right one.
    FileNotFoundError
        If there is no such file.
    """
    given = Path(path)
    shipped = SHIPPED / f"{path}.toml"
    if not given.is_file() and shipped.is_file():
        given = shipped
    if not given.is_file():
        names = ", ".join(sorted(found.stem for found in SHIPPED.glob("*.toml")))
        raise FileNotFoundError(
            f"expected a plan at {path}, found no file; give a TOML file, or one of {names}"
        )
    try:
        entries = tomllib.loads(given.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected TOML in {given}: {error}") from error
    return plan_of(entries)


def plan_of(entries: Mapping[str, Any]) -> Plan:
    """A plan from plain entries.

    Raises
    ------
    ValueError
        If a key is unknown (the nearest is named), or a value is not what it should be.

    >>> plan_of({"grid": {"data": ["digits"], "net": ["mlp"], "per_clas": [10]}})
    Traceback (most recent call last):
    ...
    ValueError: expected other keys in [grid], got 'per_clas'; did you mean per_class?
    """
    _only("the plan", entries, TABLES)
    tables = {name: entries.get(name, {}) for name in TABLES}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise ValueError(f"expected a table [{name}], got {table!r}")
    grid = tables["grid"]
    _only("[grid]", grid, AXES)
    missing = [axis for axis in AXES[:4] if axis not in grid]
    if missing:
        raise ValueError(f"expected {', '.join(AXES[:4])} in [grid], found no {missing[0]}")
    plan = Plan(
        data=tuple(_named("data", d) for d in _axis("data", grid["data"], (str, Mapping))),
        net=tuple(_net(net) for net in _axis("net", grid["net"], (str, Mapping))),
        per_class=SAMPLE_SIZES
        if grid["per_class"] == "papers"
        else _axis("per_class", grid["per_class"], int),
        learning_rate=_rates(grid["learning_rate"]),
        seed=_axis("seed", grid.get("seed", [0]), int),
        training=_table(TrainingPlan, "training", tables["training"]),
        analysis=_table(AnalysisPlan, "analysis", tables["analysis"]),
    )
    for data in plan.data:
        if data["name"] not in DATASETS:
            raise unknown("data set", data["name"], DATASETS)
    if min(plan.per_class) < 1 or min(plan.seed) < 0:
        raise ValueError("expected per_class of at least 1 and seeds of at least 0 in [grid]")
    if not all(0 < rate < math.inf for rate in plan.learning_rate):
        raise ValueError(f"expected learning rates above 0, got {list(plan.learning_rate)}")
    _check_training(plan)
    return plan


def _check_training(plan: Plan) -> None:
    training = plan.training
    if training.epochs is not None and training.epochs < 3:
        raise ValueError(f"expected epochs of at least 3 in [training], got {training.epochs}")
    if training.schedule not in ("step", "cosine", "constant"):
        raise ValueError(
            f'expected schedule "step", "cosine" or "constant", got {training.schedule!r}'
        )
    if training.batch_size < 1 or training.weight_decay < 0 or not 0 <= training.label_noise <= 1:
        raise ValueError(
            "expected batch_size >= 1, weight_decay >= 0 and label_noise in 0..1 in [training]"
        )
    if plan.analysis.steps < 2 or plan.analysis.draws < 2:
        raise ValueError("expected steps and draws of at least 2 in [analysis]")
    if plan.analysis.claims not in ("none", "last", "all"):
        raise ValueError(
            f'expected claims "none", "last" or "all" in [analysis], got {plan.analysis.claims!r}'
        )
    for cell in plan.cells():
        plan.run(cell, plan.learning_rate[0], plan.seed[0])  # what is wrong with the snapshots


def _axis(name: str, values: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        values = [values]
    wrong = [v for v in values if not isinstance(v, kind) or isinstance(v, bool)]
    if not values or wrong:
        word = getattr(kind, "__name__", "name or table")
        raise ValueError(f"expected a list of {word} for {name} in [grid], got {values!r}")
    if len({canonical({"": value}) for value in values}) < len(values):
        raise ValueError(f"expected {name} in [grid] without repetitions, got {values!r}")
    return tuple(values)


def _named(axis: str, given: str | Mapping[str, Any]) -> Mapping[str, Any]:
    settings = {"name": given} if isinstance(given, str) else dict(given)
    if not isinstance(settings.get("name"), str):
        raise ValueError(
            f'expected {axis} in [grid] as names or tables {{name = "…", …}}, got {given!r}'
        )
    return settings


def _net(given: str | Mapping[str, Any]) -> Mapping[str, Any]:
    settings = _named("net", given)
    if not known_network(settings["name"]):
        network(settings["name"], (1,), 2)  # says which there are
    return settings


def _rates(given: Any) -> tuple[float, ...]:
    if isinstance(given, str):
        name, _, number = given.partition(":")
        if name != "papers" or (number and not (number.isdecimal() and int(number) > 1)):
            raise ValueError(
                f'expected learning_rate as numbers, "papers" or "papers:25", got {given!r}'
            )
        return tuple(learning_rates(int(number or 100)))
    return tuple(float(rate) for rate in _axis("learning_rate", given, (int, float)))


def _table(kind: type, name: str, entries: Mapping[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    _only(f"[{name}]", entries, fields)
    chosen: dict[str, Any] = {}
    for key, given in entries.items():
        default = getattr(kind, key)
        value = tuple(given) if isinstance(given, list) else given
        wanted: tuple[type, ...] = (type(default),)
        if default is None:
            wanted = (int, type(None))
        elif isinstance(default, float):
            wanted = (int, float)
        elif key == "snapshots":
            wanted = (str, tuple)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise ValueError(f"expected {key} in [{name}] to be like {default!r}, got {given!r}")
        chosen[key] = float(given) if isinstance(default, float) else value
    return kind(**chosen)


def _only(where: str, entries: Mapping[str, Any], known: Collection[str]) -> None:
    for key in entries:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
            guess = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"expected other keys in {where}, got {key!r}; {guess}")
