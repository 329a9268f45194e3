"""What an attribution found, and how it is kept."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy
import scipy
import torch

from deepspec.arguments import as_path
from deepspec.attribution import summary as words
from deepspec.attribution.by_layer import LayerAttribution
from deepspec.attribution.measurement import Settings
from deepspec.attribution.split import SplitAttribution
from deepspec.layerwise import LayerStructure, layers_in_words
from deepspec.storage.display import Drawable, Result, Table, Tabular, html_table
from deepspec.storage.results import load_result, new_folder, save_result


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Attribution(Result, Tabular, Drawable):
    """What was found about the causes of one net's spectrum: verdicts, tables, spectra, cost.

    :func:`deepspec.attribute` returns it.

    Attributes
    ----------
    problem
        The fingerprint of the net and its data.
    num_classes, parameters
        C, and the length of θ.
    settings
        How it was measured.
    splits
        What was found, by the name of the data: "train" and maybe "test".
    has_untrained
        Whether the untrained net is shown beside it.
    plan
        The choices that change rounding, to repeat it to the bit.
    versions
        Of what the numbers depend on.
    seconds
        It took.
    layers, left_out
        Every layer by its name, where they were asked for, and why other modules are none.

    >>> from deepspec.attribution import attribute
    >>> from deepspec.class_structure import ClassArray
    >>> labels = torch.arange(12) % 3
    >>> vectors = torch.eye(3, dtype=torch.float64)[labels] + torch.eye(12, 3, dtype=torch.float64)
    >>> found = attribute(ClassArray(vectors, labels), draws=2)
    >>> found.num_classes, list(found.splits)
    (3, ['train'])
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
        with new_folder(as_path(folder, "the folder"), overwrite=overwrite) as place:
            save_result(place, self)

    @property
    def matvecs(self) -> int:
        """Products with J, Jᵀ and second derivatives that all splits took."""
        return sum(split.matvecs for split in self.splits.values())

    def _words(self) -> list[str]:
        net = f"{self.parameters:,} parameters, {self.num_classes} classes"
        words = [f"{net}, {self.matvecs:,} matvecs"]
        for name, split in self.splits.items():
            answers = {f.claim: f.answer for f in split.findings}
            kinds = ("supported", "not supported", "not decided")
            said = [
                f"{kind}: {', '.join(c for c, a in answers.items() if a == kind)}"
                for kind in kinds
                if kind in answers.values()
            ]
            words += [f"{name}: {split.samples:,} samples", *(f"{name}, {line}" for line in said)]
        return words

    def _table(self) -> Table:
        tables = {name: split._table() for name, split in self.splits.items()}
        first, *_ = tables.values()
        return {
            "split": [name for name, split in self.splits.items() for _ in split.findings],
            **{head: [v for table in tables.values() for v in table[head]] for head in first},
        }

    def _repr_html_(self) -> str:
        lines = [escape(part).split("\n- ") for part in self.summary().split("\n\n")]
        said = "".join(
            f"<p>{head}</p><ul>{''.join(f'<li>{x}</li>' for x in rest)}</ul>"
            for head, *rest in lines
        )
        return said + html_table(self._table())

    def summary(self) -> str:
        """The conclusion in plain words."""
        told = words.conclusion(self.splits, self.num_classes)
        if not self.structures:
            return told
        return f"{told}\n\nLayer by layer:\n- {layers_in_words(self.structures)}"

    @property
    def structures(self) -> list[LayerStructure]:
        """The layers' measures and spectra, from the input; empty unless layers were asked for."""
        return [one.structure for one in self.layers.values() if one.structure is not None]

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
    return load_result(Attribution, as_path(folder, "the folder"))[1]


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }
