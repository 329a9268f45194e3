"""The shell: ``deepspec figure``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deepspec.cli.commands import plain_table
from deepspec.cli.sweep import told
from deepspec.experiments.collect import Sweep
from deepspec.experiments.reading import read_plan
from deepspec.experiments.store import PLAN
from deepspec.experiments.sweep import run_sweep
from deepspec.report.paper_figures import FIGURES, paper_figure
from deepspec.report.plots.style import png
from deepspec.report.source import Source
from deepspec.storage.files import write_atomically

DEFAULT = Path("runs/figures-sweep")
WORDS = {True: "there", False: "not there", None: "see for yourself"}


def figure_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Such as jmlr2020-5; LIST, or none: what there is.")
    ] = None,
    run: Annotated[
        Path, typer.Option(help="A folder that deepspec sweep wrote; the default one is made.")
    ] = DEFAULT,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/figures"),
    per_class: Annotated[
        int | None, typer.Option(help="Which net figures of one net are of; default the largest.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Where the data's files are.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw figures of the papers from one's own runs, and say whether what they show is there.

    Example: deepspec figure jmlr2020-6 icml2019-5 --run runs/sweep
    """
    if not names or [name.upper() for name in names] == ["LIST"]:
        _list(as_json)
        return
    chosen = [paper_figure(name) for name in names]
    if run == DEFAULT and not (run / PLAN).is_file():
        with told() as progress:
            run_sweep(read_plan("demo"), run, progress=progress)
    source = Source(Sweep(run), per_class, root)
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for figure in chosen:
        drawn = figure.draw(source)
        path = out / f"{figure.name}.png"
        write_atomically(path, png(drawn.figure))
        found.append(
            {
                "name": figure.name,
                "file": str(path),
                "look_for": figure.look_for,
                "there": drawn.there,
                "found": drawn.found,
            }
        )
        if not as_json:
            typer.echo(
                f"{path}: {figure.title}, {source.trajectory.title}\n  look for: "
                f"{figure.look_for}\n  {WORDS[drawn.there]}: {drawn.found}"
            )
    if as_json:
        typer.echo(json.dumps(found, indent=1))


def _list(as_json: bool) -> None:
    ordered = sorted(FIGURES.values(), key=lambda f: [*map(_number, re.split("-", f.name))])
    if as_json:
        typer.echo(
            json.dumps(
                [{"name": f.name, "title": f.title, "look_for": f.look_for} for f in ordered]
            )
        )
        return
    rows = [[f.name, f.title, f.look_for] for f in ordered]
    head = ["figure", "title", "look for"]
    Console(highlight=False).print(plain_table("deepspec figure NAME …", head, rows))


def _number(word: str) -> tuple[str, int]:
    return ("", int(word)) if word.isdecimal() else (word, 0)
