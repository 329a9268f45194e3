"""The command line: ``ccm spectrum``, each command with ``--json`` and an example in its help."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ccm.model import CanonicalClassificationModel
from ccm.spectrum import Spectrum
from ccm.symmetric import symmetric_spectrum

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What the class structure of a classifier's Fisher information must look like.",
)

Dim = Annotated[int, typer.Option("--dim", "-d", help="D, the number of coordinates (D ≥ C).")]
Classes = Annotated[int, typer.Option("--classes", "-c", help="C, the number of classes (≥ 2).")]
Snr = Annotated[float, typer.Option("--snr", "-t", help="t, length of a class mean (≥ 0).")]
Alpha = Annotated[
    float, typer.Option("--alpha", "-a", help="mean probability of the wrong classes, ≤ 1 - 1/C.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def main() -> None:
    """What the class structure of a classifier's Fisher information must look like."""


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn an error about the input into one line on stderr and exit status 2."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        Console(stderr=True, highlight=False).print(f"Error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error


def show_spectrum(spectrum: Spectrum, title: str, facts: dict[str, Any], as_json: bool) -> None:
    """A spectrum as a table with its facts below, or all of it as JSON."""
    if as_json:
        typer.echo(json.dumps({**facts, "trace": spectrum.trace, "levels": spectrum.records()}))
        return
    table = Table(title=title, title_justify="left")
    table.add_column("group")
    table.add_column("eigenvalue", justify="right")
    table.add_column("multiplicity", justify="right")
    for level in spectrum.levels:
        table.add_row(level.label, f"{level.value:.9g}", str(level.multiplicity))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"trace {spectrum.trace:.9g}, {spectrum.size} eigenvalues")


@app.command()
def spectrum(dim: Dim, classes: Classes, snr: Snr, alpha: Alpha, as_json: Json = False) -> None:
    """Level 1, Theorem 8.1: population FIM with symmetric probabilities.

    Example: ccm spectrum --dim 50 --classes 10 --snr 3 --alpha 0.1
    """
    with reported_errors():
        model = CanonicalClassificationModel(dim, classes, snr)
        result = symmetric_spectrum(model, alpha)
        facts = {"dim": dim, "num_classes": classes, "snr": snr, "alpha": alpha}
        title = f"Theorem 8.1: CCM({dim}, {classes}), snr {snr:g}, α {alpha:g}"
        show_spectrum(result, title, facts, as_json)
