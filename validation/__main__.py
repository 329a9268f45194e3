"""``python -m validation``: list the studies, or run some or all of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deepspec.cli.errors import OneLineErrors, fail
from validation._record import keeping, read_verdict, write_verdict
from validation._study import Profile, Study, Verdict, all_studies

app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One study per claim of the papers: theory against numerics, with a verdict.",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """List the studies; `run` runs them."""
    if context.invoked_subcommand is None:
        list_studies()


@app.command("list")
def list_studies(as_json: Json = False) -> None:
    """The studies and the claims they test.

    Example: python -m validation list
    """
    studies = all_studies()
    if as_json:
        fields = ("name", "claim", "source", "prediction", "tolerance")
        typer.echo(json.dumps([{f: getattr(s, f) for f in fields} for s in studies.values()]))
        return
    title = "Studies (run them: python -m validation run NAME... | --all)"
    table = Table(title=title, show_lines=True)
    table.add_column("study", no_wrap=True)
    table.add_column("claim and source")
    table.add_column("passes if")
    for study in studies.values():
        cells = (study.name, f"{study.claim} ({study.source})", study.tolerance)
        table.add_row(*map(escape, cells))
    Console(highlight=False).print(table)


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Names of studies.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Run all of them.")] = False,
    profile: Annotated[Profile, typer.Option(help="quick: seconds each; full: minutes.")] = "quick",
    out: Annotated[
        Path | None, typer.Option(help="A folder for figures and verdicts; go on with those there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run studies; the exit status is 1 if one fails.

    With --out, a run that was stopped goes on: verdicts that the same code wrote there, for the
    same profile, and nets that it had finished in a study (in the folder nets) are kept.

    Example: python -m validation run --all --profile quick --out runs/validation
    """
    studies = all_studies()
    if every == bool(names):
        fail("name the studies to run, or give --all (and not both)")
    unknown = [name for name in names or [] if name not in studies]
    if unknown:
        fail(f"no study {', '.join(unknown)}; there are {', '.join(studies)}")
    chosen = [studies[name] for name in names or studies]
    try:  # before any work
        for study in chosen if out is not None else []:
            (out / study.name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"expected a folder that can be written to at --out, got {out} ({error.strerror})")
    results: list[tuple[Study, Verdict, float]] = []
    errors = Console(stderr=True, highlight=False)
    for study in chosen:
        folder = None if out is None else out / study.name
        kept = None if folder is None else read_verdict(folder, profile)
        if kept is not None:
            results.append((study, *kept))
            continue
        with errors.status(f"{study.name} ({len(results) + 1} of {len(chosen)})"):
            start = time.perf_counter()
            with keeping(out):
                verdict = study.run(profile, folder)
            results.append((study, verdict, time.perf_counter() - start))
        if folder is not None:
            write_verdict(folder, profile, *results[-1][1:])
        word = "passed" if verdict.passed else "FAILED"
        errors.print(f"{study.name}: {word} after {results[-1][2]:.1f} s", markup=False)
    report(results, as_json)
    if not all(verdict.passed for _, verdict, _ in results):
        raise typer.Exit(1)


def report(results: list[tuple[Study, Verdict, float]], as_json: bool) -> None:
    """The verdicts, as a summary table or as JSON."""
    if as_json:
        records = [
            {
                "name": study.name,
                "claim": study.claim,
                "passed": bool(verdict.passed),
                "finding": verdict.finding,
                "numbers": {key: float(value) for key, value in verdict.numbers.items()},
                "seconds": round(seconds, 2),
            }
            for study, verdict, seconds in results
        ]
        typer.echo(json.dumps(records))
        return
    table = Table(title="Verdicts", show_lines=True)
    table.add_column("study", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("finding")
    table.add_column("s", justify="right")
    for study, verdict, seconds in results:
        word = "passed" if verdict.passed else "FAILED"
        style = "green" if verdict.passed else "bold red"
        cells = (escape(study.name), f"[{style}]{word}[/]", escape(verdict.finding))
        table.add_row(*cells, f"{seconds:.1f}")
    Console(highlight=False).print(table)
    passed = sum(verdict.passed for _, verdict, _ in results)
    total = sum(seconds for _, _, seconds in results)
    Console(highlight=False).print(f"{passed} of {len(results)} passed in {total:.0f} s")


if __name__ == "__main__":
    app(prog_name="python -m validation")
