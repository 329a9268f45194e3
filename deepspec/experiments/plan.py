"""What a sweep does: a grid, and how each run goes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deepspec.dynamics.snapshots import snapshot_epochs
from deepspec.zoo.datasets import Split
from deepspec.zoo.registry import (
    DATASETS,
    dataset,
    network,
)

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
        The papers' six claims with nulls (:func:`deepspec.attribute`), too: ``"none"``, after the
        ``"last"`` epoch, or after ``"all"`` but the untrained net.
    steps
        Of each Lanczos density.
    exact_up_to
        Spectra of G are exact where n · C is at most this.
    draws
        Of each null.
    """

    hessian: bool = True
    claims: str = "none"
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
        """Plain JSON, from which :func:`~deepspec.experiments.reading.plan_of` makes it again."""
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
