"""The command ``ccm sweep``: a table and figures over SNRs, to be stopped and resumed at will."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ccm.cli.options import (
    Classes,
    Decay,
    Dim,
    Json,
    PerClass,
    Seed,
    print_json,
    show,
)
from ccm.sweep import Alpha, SweepTable, snr_sweep


def sweep(
    dim: Dim,
    classes: Classes,
    snr: Annotated[
        str,
        typer.Option("--snr", "-t", help="low:high:count, or a list 1,2,3; ascending, 0 to 64."),
    ],
    per_class: PerClass,
    alpha: Annotated[
        str, typer.Option("--alpha", "-a", help="A number, or 'bayes', or 'measured'.")
    ] = "bayes",
    replicates: Annotated[int, typer.Option(help="Data sets at each SNR (≥ 2).")] = 5,
    weight_decay: Decay = 1e-4,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="The CSV; figures go beside it.")] = Path(
        "sweep.csv"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the CSV and its figures.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Theory at every level beside simulation, over signal-to-noise ratios.

    Writes the table as CSV and two figures beside it. Finished data sets are kept in
    OUT.resume until all is written: stop it at any time and give the same command to go on.

    Example: ccm sweep --snr 0.5:6:12 --classes 10 --dim 100 --per-class 1000 --out sweep.csv
    """
    resume = out.with_name(f"{out.name}.resume")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"the folder of {out} does not exist; make it first")
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out is the CSV's own name")
    for file in (out, *_figures(out)):
        if file.exists() and not resume.exists() and not overwrite:
            raise ValueError(f"{file} exists; give --overwrite, or another --out")
    snrs, chosen = parse_snrs(snr), parse_alpha(alpha)
    with _progress() as progress:
        table = snr_sweep(
            dim,
            classes,
            snrs,
            per_class,
            alpha=chosen,
            replicates=replicates,
            weight_decay=weight_decay,
            seed=seed,
            resume=resume,
            progress=progress,
        )
    table.save(out)
    files = [out, *_draw(table, out)]
    resume.unlink(missing_ok=True)
    if as_json:
        names = [str(file) for file in files]
        print_json({"files": names, "rows": table.records()})
    else:
        _show_sweep(table, files)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that appears with the first report, after the input is checked."""
    columns = (TextColumn("sweep"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("sweep", total=None)

    def show_progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show_progress
    finally:
        if bar.live.is_started:
            bar.stop()


def _figures(out: Path) -> tuple[Path, Path]:
    """Where a sweep's two figures go."""
    eigenvalues = out.with_name(f"{out.stem}-eigenvalues.png")
    return eigenvalues, out.with_name(f"{out.stem}-misclassification.png")


def _draw(table: SweepTable, out: Path) -> list[Path]:
    """The figures that this table has, beside the CSV."""
    from ccm.plots.levels import save_figure
    from ccm.plots.sweep import plot_eigenvalues, plot_misclassification

    eigenvalues, misclassification = _figures(out)
    drawn = []
    if len(table.rows) > 1:
        drawn.append(eigenvalues)
        save_figure(plot_eigenvalues(table), eigenvalues)
    if (table.column("test_error") > 0).any():
        drawn.append(misclassification)
        save_figure(plot_misclassification(table), misclassification)
    return drawn


def _show_sweep(table: SweepTable, files: list[Path]) -> None:
    """The main columns on the terminal; the CSV has them all."""
    heads = {
        "snr": "t",
        "bayes_error": "Bayes error",
        "test_error": "test error",
        "level1_outliers_over_bulk": "level 1",
        "symmetric_outliers_over_bulk": "simulated",
        "level3_outliers_over_bulk": "level 3",
        "fitted_outliers_over_bulk": "fitted",
    }
    rows = [[f"{row[name]:.4g}" for name in heads] for row in table.rows]
    notes = [f"wrote {file}" for file in files]
    show("outliers / bulk, at every level", list(heads.values()), rows, notes)


def parse_snrs(text: str) -> tuple[float, ...]:
    """SNRs from "low:high:count" or a comma-separated list.

    Raises
    ------
    ValueError
        If the text is neither.

    Examples
    --------
    >>> parse_snrs("0.5:6:3"), parse_snrs("1,2.5")
    ((0.5, 3.25, 6.0), (1.0, 2.5))
    """
    try:
        if ":" in text:
            first, last, count = text.split(":")
            low, high = float(first), float(last)
            if not -math.inf < low <= high < math.inf:
                raise ValueError
            return tuple(np.linspace(low, high, int(count)).tolist())
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(
            f"--snr takes low:high:count (0.5:6:12), low ≤ high, or a list (1,2,3), got {text!r}"
        ) from error


def parse_alpha(text: str) -> Alpha:
    """A number, "bayes" or "measured".

    Raises
    ------
    ValueError
        If the text is none of them.

    Examples
    --------
    >>> parse_alpha("0.25"), parse_alpha("measured")
    (0.25, 'measured')
    """
    if text == "bayes":
        return "bayes"
    if text == "measured":
        return "measured"
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"--alpha takes a number, bayes or measured, got {text!r}") from error
