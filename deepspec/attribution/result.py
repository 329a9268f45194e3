"""What an attribution found, and how it is kept."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch
from torch import Tensor

from deepspec.attribution import summary as words
from deepspec.attribution.by_layer import LayerAttribution
from deepspec.attribution.measurement import Settings
from deepspec.attribution.split import SplitAttribution
from deepspec.storage.checkpoint import load_state, save_state
from deepspec.storage.results import new_folder, pack, unpack

KIND = "attribution"


@dataclass(frozen=True, eq=False)
class Attribution:
    """The attribution of one net's spectra: what :func:`deepspec.attribute` returns.

    ``layers`` has every layer by its name, where they were asked for, and ``left_out`` says of
    other modules with parameters why they are none.
    """

    problem: dict[str, Any]
    num_classes: int
    parameters: int
    settings: Settings
    splits: dict[str, SplitAttribution]
    has_untrained: bool
    plan: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    layers: dict[str, LayerAttribution] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def train(self) -> SplitAttribution:
        """The split the attribution was asked for."""
        return self.splits["train"]

    @property
    def test(self) -> SplitAttribution:
        """The other split.

        Raises
        ------
        KeyError
            If there was none.
        """
        if "test" not in self.splits:
            raise KeyError("expected a test split; pass attribute(problem, test=...) to have one")
        return self.splits["test"]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write ``manifest.json`` and the arrays (safetensors) into a new folder, all or nothing.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is false; with it, the old one is replaced
            once the new one is complete.
        """
        with new_folder(Path(folder), overwrite=overwrite) as place:
            self.write_state(place)

    def write_state(self, folder: Path, extra: Mapping[str, Any] | None = None) -> None:
        """The manifest and the arrays, into a folder that is being made; ``extra`` goes first."""
        arrays: dict[str, Tensor] = {}
        tree = pack(self, KIND, arrays)
        save_state(folder, {"kind": KIND, **(extra or {}), KIND: tree}, arrays)

    @classmethod
    def load(cls, folder: str | Path) -> Attribution:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            If the folder holds something else, or what another version wrote.
        """
        with read_state(folder) as (manifest, arrays):
            loaded = unpack(cls, manifest[KIND], arrays)
        assert isinstance(loaded, cls)
        return loaded

    def summary(self) -> str:
        """The conclusion in plain words."""
        return words.conclusion(self.splits, self.num_classes)

    def tables(self) -> dict[str, list[list[str]]]:
        """Every table, by its title; the first row of each names its columns."""
        return words.tables(self.splits, self.parameters)


def extra_entries(folder: str | Path) -> dict[str, Any]:
    """What a saved attribution's manifest says beside it, such as the command that ran.

    Raises
    ------
    ValueError
        As :meth:`Attribution.load`.
    """
    own = {"kind", KIND, "arrays", "sha256"}
    with read_state(folder) as (manifest, _):
        return {name: value for name, value in manifest.items() if name not in own}


@contextmanager
def read_state(folder: str | Path) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """A saved attribution's manifest and arrays; what does not fit while they are read is said."""
    try:
        manifest, arrays = load_state(Path(folder))
        if manifest.get("kind") == KIND:
            yield manifest, arrays
            return
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"expected a saved attribution of this version in {folder}, but it was written by "
            f"another version or is damaged ({error!r}); attribute the net again"
        ) from error
    raise ValueError(f"expected a saved attribution in {folder}, found {manifest.get('kind')}")


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }
