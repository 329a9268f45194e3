"""The shell: ``deepspec dynamics``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deepspec.experiments.collect import Sweep
from deepspec.report.dynamics import write_dynamics
from deepspec.storage.packing import pack


def dynamics_command(
    folder: Annotated[Path, typer.Argument(help="A folder that deepspec sweep wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write figures to.", show_default="FOLDER-dynamics"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace that folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trends as JSON.")] = False,
) -> None:
    """Draw how spectra move with training and sample size, and measure the trends.

    Example: deepspec dynamics runs/sweep --out runs/dynamics
    """
    place = folder.with_name(f"{folder.name}-dynamics") if out is None else out
    found = write_dynamics(Sweep(folder), place, overwrite=overwrite)
    if as_json:
        plain: dict[str, Any] = {title: pack(trends, "", {}) for title, trends in found.items()}
        typer.echo(json.dumps({"folder": str(place), "trends": plain}, indent=1))
        return
    for title, trends in found.items():
        typer.echo("\n".join([title, *(f"  {line}" for line in trends.lines())]))
    typer.echo(place)
