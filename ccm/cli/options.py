"""What the commands share: their options and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Dim = Annotated[int, typer.Option("--dim", "-d", help="D, the number of coordinates (D ≥ C).")]
Classes = Annotated[int, typer.Option("--classes", "-c", help="C, the number of classes (≥ 2).")]
Snr = Annotated[float, typer.Option("--snr", "-t", help="t, the length of a class mean (≥ 0).")]
AlphaOption = Annotated[
    float,
    typer.Option("--alpha", "-a", help="Mean probability of the wrong classes, 0 to 1 - 1/C."),
]
PerClass = Annotated[int, typer.Option("--per-class", "-n", help="N, samples of each class.")]
Decay = Annotated[float, typer.Option(help="Weight decay of the fitted classifier.")]
Seed = Annotated[int, typer.Option(help="Seed of the samples.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
FigureFile = Annotated[
    Path | None, typer.Option("--figure", help="Also draw a figure, as .png, .pdf or .svg.")
]


def print_json(facts: Mapping[str, Any]) -> None:
    """One JSON object on stdout, with null for NaN and infinity, which JSON does not know."""
    typer.echo(json.dumps(_finite(facts), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(title: str, columns: list[str], rows: list[list[str]], notes: list[str]) -> None:
    """A table on stdout, with lines below it."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)
