"""What a sweep does, read from TOML and checked before any work: a grid, and how each run goes."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deepspec.dynamics.snapshots import snapshot_epochs
from deepspec.zoo.datasets import Split
from deepspec.zoo.libraries import unknown
from deepspec.zoo.registry import (
    DATASETS,
    SAMPLE_SIZES,
    dataset,
    known_network,
    learning_rates,
    network,
)

SHIPPED = Path(__file__).with_name("plans")
Settings = dict[str, Any]


class Cell(NamedTuple):
    """One place of the grid: what shares a learning rate. Data and net as lines of JSON."""

    data: str
    net: str
    per_class: int

    @property
    def data_name(self) -> str:
        """The data set's name."""
        return str(json.loads(self.data)["name"])

    @property
    def title(self) -> str:
        """Net and data in words."""
        return f"{_short(self.net)} on {_short(self.data)}"

    def __str__(self) -> str:
        return f"{self.title}, {self.per_class} per class"


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How each net is trained; see :func:`deepspec.zoo.training.train`.

    ``epochs`` is the papers' number for the data set unless given.
    """

    epochs: int | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 128
    schedule: str = "step"
    label_noise: float = 0.0
    snapshots: str | tuple[int, ...] = "log:6"


@dataclass(frozen=True, kw_only=True)
class AnalysisPlan:
    """What is measured at the snapshots of the chosen nets.

    Attributes
    ----------
    hessian
        Spectra of Hess and E beside those of G.
    claims
        At the last epoch the papers' six claims with nulls (:func:`deepspec.attribute`), too.
    steps
        Of each Lanczos density.
    exact_up_to
        Spectra of G are exact where n · C is at most this.
    draws
        Of each null.
    """

    hessian: bool = True
    claims: bool = False
    steps: int = 60
    exact_up_to: int = 1500
    draws: int = 2


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A grid data × net × n per class × learning rate × seed.

    Attributes
    ----------
    data
        Settings of data sets: a ``name`` of :data:`~deepspec.zoo.registry.DATASETS`, and options
        for its loader, such as ``test_per_class``.
    net
        Settings of nets: a ``name``, and options such as ``widths``.
    per_class, learning_rate, seed
        The other axes. A seed draws the samples, the start and the order.
    training, analysis
        The same for all runs.
    """

    data: tuple[Mapping[str, Any], ...]
    net: tuple[Mapping[str, Any], ...]
    per_class: tuple[int, ...]
    learning_rate: tuple[float, ...]
    seed: tuple[int, ...] = (0,)
    training: TrainingPlan = field(default_factory=TrainingPlan)
    analysis: AnalysisPlan = field(default_factory=AnalysisPlan)

    def cells(self) -> Iterator[Cell]:
        """Every place of the grid, learning rate and seed apart."""
        for data in self.data:
            for net in self.net:
                for per_class in self.per_class:
                    yield Cell(canonical(data), canonical(net), per_class)

    def run(self, cell: Cell, rate: float, seed: int) -> Settings:
        """Everything that one training depends on."""
        chosen = dataclasses.asdict(self.training)
        epochs = chosen["epochs"] or DATASETS[cell.data_name].epochs
        noise = chosen.pop("label_noise")
        kept = sorted({*snapshot_epochs(chosen["snapshots"], epochs), epochs})
        return {
            "data": {
                **json.loads(cell.data),
                "per_class": cell.per_class,
                "label_noise": noise,
            },
            "net": json.loads(cell.net),
            "training": chosen | {"epochs": epochs, "snapshots": kept, "learning_rate": rate},
            "seed": seed,
        }

    def analysis_of(self, run: Settings) -> Settings:
        """Everything that the analysis of one training depends on."""
        return {"run": run, "analysis": dataclasses.asdict(self.analysis)}

    def as_dict(self) -> Settings:
        """Plain JSON, from which :func:`plan_of` makes it again."""
        entries = dataclasses.asdict(self)
        grid = {name: entries.pop(name) for name in AXES}
        plain: Settings = json.loads(json.dumps({"grid": grid, **entries}))
        return plain

    def check(self, root: str | Path | None = None, *, download: bool = False) -> None:
        """See that every data set has enough samples, and every net takes them, before any work.

        Raises
        ------
        ValueError
            If not.
        OSError
            If files are missing.
        """
        for data in self.data:
            for net in self.net:
                name, options = net["name"], {k: v for k, v in net.items() if k != "name"}
                try:
                    split = load(
                        {**data, "per_class": max(self.per_class)}, name, 0, root, download
                    )
                    with torch.device("meta"):
                        network(name, split.shape, split.num_classes, **options)
                except TypeError as error:
                    raise ValueError(
                        f"expected options that {data['name']} and {name} have, got "
                        f"{canonical(data)} and {canonical(net)} ({error})"
                    ) from error


AXES = ("data", "net", "per_class", "learning_rate", "seed")
TABLES = ("grid", "training", "analysis")


def canonical(settings: Mapping[str, Any]) -> str:
    """Settings as one line of JSON, the same for the same content."""
    return json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)


def name_of(settings: Mapping[str, Any]) -> str:
    """The folder of a run: a hash of its settings.

    >>> name_of({"a": 1, "b": 2}) == name_of({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]


def load(
    data: Mapping[str, Any],
    net: str,
    seed: int,
    root: str | Path | None,
    download: bool,
) -> Split:
    """The data of a run's settings, for a net by name."""
    options = {key: value for key, value in data.items() if key != "name"}
    on_disk = DATASETS[data["name"]].on_disk
    return dataset(
        data["name"],
        seed=seed,
        for_network=net,
        root=root if on_disk else None,
        download=download,
        **options,
    )


def _short(settings: str) -> str:
    """Settings in words: the name, and what else was chosen."""
    entries = json.loads(settings)
    rest = ", ".join(f"{key} {value}" for key, value in entries.items() if key != "name")
    return f"{entries['name']} ({rest})" if rest else str(entries["name"])


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
    for key, value in entries.items():
        default = getattr(kind, key)
        value = tuple(value) if isinstance(value, list) else value
        wanted: tuple[type, ...] = (type(default),)
        if default is None:
            wanted = (int, type(None))
        elif isinstance(default, float):
            wanted = (int, float)
        elif key == "snapshots":
            wanted = (str, tuple)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise ValueError(
                f"expected {key} in [{name}] to be like {default!r}, got {entries[key]!r}"
            )
        chosen[key] = float(value) if isinstance(default, float) else value
    return kind(**chosen)


def _only(where: str, entries: Mapping[str, Any], known: Any) -> None:
    for key in entries:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
            guess = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"expected other keys in {where}, got {key!r}; {guess}")
