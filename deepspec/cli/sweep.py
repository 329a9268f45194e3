"""The shell: ``deepspec train`` and ``deepspec sweep``."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepspec.cli.errors import fail
from deepspec.experiments.cluster import has_dask
from deepspec.experiments.reading import read_plan
from deepspec.experiments.sweep import Summary, run_sweep
from deepspec.zoo.registry import DATASETS, dataset, network
from deepspec.zoo.training import Schedule, Training, train

EVERY = 10.0  # seconds between two lines where stderr is no terminal


class Schedules(StrEnum):
    """How the learning rate falls."""

    step = "step"
    cosine = "cosine"
    constant = "constant"


Root = Annotated[Path | None, typer.Option(help="Where the data's files are.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch missing files.")]
Device = Annotated[str, typer.Option(help='"cpu" or "cuda".')]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def train_command(
    out: Annotated[Path, typer.Option(help="Folder of the run; one that was stopped goes on.")],
    model: Annotated[
        str, typer.Option(help="A built-in net, or timm:NAME, torchvision:NAME, transformers:NAME.")
    ] = "mlp",
    data: Annotated[str, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = "digits",
    per_class: Annotated[
        int | None, typer.Option(help="Training samples of each class.", min=1)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Default: the papers' for the data set.", min=3)
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="At the start.")] = 0.05,
    schedule: Annotated[
        Schedules, typer.Option(help="step: divided by 10 after 1/3 and 2/3 of the epochs.")
    ] = Schedules.step,
    weight_decay: Annotated[float, typer.Option(min=0.0)] = 5e-4,
    momentum: Annotated[float, typer.Option(min=0.0)] = 0.9,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    label_noise: Annotated[
        float, typer.Option(help="Share of training labels replaced.", min=0.0, max=1.0)
    ] = 0.0,
    no_normalisation: Annotated[
        bool, typer.Option("--no-normalisation", help="No batch normalisation (built-in nets).")
    ] = False,
    snapshots: Annotated[
        str, typer.Option(help='Epochs to keep weights at: "log:8", or a list such as 0,3,60.')
    ] = "log:8",
    root: Root = None,
    download: Download = False,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="All randomness follows from it.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a net as the papers do, with snapshots of its weights on the way.

    Example: deepspec train --model resnet18 --data cifar10 --root data --per-class 136
    --snapshots log:8 --out runs/resnet18
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"expected --learning-rate above 0, got {learning_rate}")
    split = dataset(
        data,
        per_class,
        seed,
        for_network=model,
        root=root,
        download=download,
        label_noise=label_noise,
    )
    options = {"normalise": False} if no_normalisation else {}
    net = network(model, split.shape, split.num_classes, seed, **options)
    chosen: Schedule = schedule.value
    done = train(
        net.to(device),
        *(part.to(device) for part in split.train),
        epochs=epochs or DATASETS[data].epochs,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        schedule=chosen,
        seed=seed,
        test=(split.test_inputs.to(device), split.test_labels.to(device)),
        folder=out,
        snapshots=epochs_of(snapshots),
    )
    _say_training(done, net, out, as_json)


def epochs_of(text: str) -> str | list[int]:
    """What ``--snapshots`` says: a plan in words, or epochs.

    >>> epochs_of("0,3,60"), epochs_of("log:4")
    ([0, 3, 60], 'log:4')
    """
    if text.startswith("log"):
        return text
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ValueError(
            f'expected --snapshots as "log:8" or epochs such as 0,3,60, got {text!r}'
        ) from None


def _say_training(done: Training, net: torch.nn.Module, out: Path, as_json: bool) -> None:
    size = sum(parameter.numel() for parameter in net.parameters())
    if as_json:
        found = {
            "folder": str(out),
            "parameters": size,
            "epochs": done.epochs,
            "loss": done.losses[-1],
            "error_rate": done.error_rate,
            "test_error": done.test_errors[-1],
        }
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{size:,} parameters, {done.epochs} epochs: loss {done.losses[-1]:.2e}, training error "
        f"{done.error_rate:.2%}, test error {done.test_errors[-1]:.2%}\n{out}"
    )


def sweep_command(
    plan: Annotated[str, typer.Argument(help="A TOML file, or one that ships: demo, papers.")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep; one that was stopped goes on.")],
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes on this machine, with Dask; 0: runs go one after another here.",
            min=0,
            show_default="as many as cores with Dask, else 0",
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask cluster: tcp://host:8786, or its scheduler file.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    root: Root = None,
    download: Download = False,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(help="Of each run.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Train a grid of nets, choose learning rates as the papers do, analyse the chosen nets.

    Killed at any moment, the same command goes on. The exit status is 1 if runs failed.

    Examples:

      deepspec sweep demo --out runs/sweep

      deepspec sweep plan.toml --out runs/sweep --scheduler scheduler.json --device cuda
    """
    chosen = read_plan(plan)
    if workers is None:
        workers = (os.cpu_count() or 1) if has_dask() and scheduler is None else 0
    if workers == 0 and scheduler is None and not has_dask():
        print(
            "note: runs go one after another; for several, pip install 'deepspec-ccm[cluster]'",
            file=sys.stderr,
        )
    with told() as progress:
        try:
            summary = run_sweep(
                chosen,
                out,
                workers=workers,
                scheduler=scheduler,
                retry_failed=retry_failed,
                root=root,
                download=download,
                device=device,
                threads=threads,
                progress=progress,
            )
        except ConnectionError as error:
            fail(str(error))
    _say_sweep(summary, out, as_json)
    if summary.failures:
        raise typer.Exit(1)


@contextmanager
def told(
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int, int, int], None]]:
    """How far the sweep is, with the time left: a bar on a terminal, a line now and then else."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lines(clock, lambda line: print(line, file=sys.stderr, flush=True))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("runs", total=None, failed="")

        def move(done: int, total: int, failed: int) -> None:
            words = f"{failed} failed" if failed else ""
            bar.update(task, completed=done, total=total, failed=words)

        yield move


def lines(
    clock: Callable[[], float], say: Callable[[str], None]
) -> Callable[[int, int, int], None]:
    """A line at the start, at the end, and every ten seconds.

    >>> now = iter([0.0, 1.0, 30.0])
    >>> tell = lines(lambda: next(now), print)
    >>> for done in (10, 11, 12):
    ...     tell(done, 20, 0)
    10 of 20 runs
    12 of 20 runs, about 2 min left
    """
    begun: list[float] = []
    first: list[int] = []

    def tell(done: int, total: int, failed: int) -> None:
        now = clock()
        if begun and now - begun[-1] < EVERY and done < total:
            return
        words = f"{done} of {total} runs" + (f", {failed} failed" if failed else "")
        if first and done > first[0] and done < total:
            left = (now - begun[0]) / (done - first[0]) * (total - done)
            words += f", about {left / 60:.0f} min left" if left > 90 else f", {left:.0f} s left"
        begun.append(now)
        first.append(done)
        say(words)

    return tell


def _say_sweep(summary: Summary, out: Path, as_json: bool) -> None:
    for failure in summary.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if as_json:
        chosen = {str(cell): rate for cell, rate in summary.chosen.items()}
        found = {
            "folder": str(out),
            "runs": summary.total,
            "worked": summary.worked,
            "chosen": chosen,
            "diverged": list(summary.diverged),
            "failed": [str(failure) for failure in summary.failures],
        }
        typer.echo(json.dumps(found, indent=1))
        return
    for cell, rate in summary.chosen.items():
        typer.echo(f"{cell}: learning rate {rate:g}")
    for line in summary.diverged:
        typer.echo(line)
    typer.echo(
        f"{summary.total} runs, {summary.worked} of them now; {len(summary.diverged)} diverged, "
        f"{len(summary.failures)} failed"
        + (" (try them again: --retry-failed)" if summary.failures else "")
        + f"\n{out}"
    )
