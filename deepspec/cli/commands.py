"""The shell: ``deepspec demo``, ``deepspec attribute``, ``deepspec report``."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.distributed import ProcessGroup

from deepspec.attribution import CLAIMS, Attribution, attribute
from deepspec.attribution.result import extra_entries
from deepspec.attribution.summary import removed
from deepspec.class_structure.cells import Convention
from deepspec.class_structure.groups import frequent_classes
from deepspec.cli.block_table import Parameters
from deepspec.cli.errors import OneLineErrors
from deepspec.cli.inputs import DIGITS, EPOCHS, LEARNING_RATE, PER_CLASS, Net, built_in, prepare
from deepspec.engine.distributed import speaks
from deepspec.engine.launching import launched
from deepspec.problem import LOGIT_MEMORY
from deepspec.report.html import fill, write_report
from deepspec.storage.results import new_folder

app = typer.Typer(
    cls=OneLineErrors,
    pretty_exceptions_enable=False,
    help="Which part of a trained classifier's spectrum has which cause.",
)


class Precision(StrEnum):
    """Floating-point types by the names torch gives them."""

    float32 = "float32"
    float64 = "float64"


class Papers(StrEnum):
    """Which paper's decomposition."""

    jmlr2020 = "jmlr2020"
    icml2019 = "icml2019"


Out = Annotated[Path, typer.Option(help="Folder to write; must not exist yet.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the folder, once the new one is complete.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")]
Seed = Annotated[int, typer.Option(help="All randomness follows from it.", min=0, max=2**63 - 1)]


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Which part of a trained classifier's spectrum has which cause."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train a small MLP on the handwritten digits and attribute its spectrum.

    Example: deepspec demo --out runs/demo --overwrite
    """
    _run(
        out,
        overwrite,
        as_json,
        lambda group: built_in("mlp", PER_CLASS, EPOCHS, LEARNING_RATE, seed, group=group),
        {"command": "demo", "seed": seed},
        lambda net, place: _attribute(net, Papers.jmlr2020, seed, None, place),
    )


@app.command(name="attribute")
def attribute_command(
    data: Annotated[
        str,
        typer.Option(
            help='"digits", or module:function or file.py:function returning (X, y), a Dataset '
            "or a DataLoader that does not shuffle."
        ),
    ] = DIGITS,
    test_data: Annotated[
        str | None, typer.Option(help="Held-out data, named likewise (digits bring their own).")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help='"mlp" or "convnet" (for digits), or module:function or file.py:function '
            "returning a torch.nn.Module."
        ),
    ] = "mlp",
    weights: Annotated[
        Path | None,
        typer.Option(help="A state dict: safetensors, or torch.save (read with weights_only)."),
    ] = None,
    out: Out = Path("runs/attribution"),
    overwrite: Overwrite = False,
    convention: Annotated[Papers, typer.Option(help="Of the decomposition.")] = Papers.jmlr2020,
    per_class: Annotated[
        int | None,
        typer.Option(help="Training digits of each class.", min=1, show_default=str(PER_CLASS)),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="For a built-in net on digits without weights.", min=3, show_default=str(EPOCHS)
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Likewise.", show_default=str(LEARNING_RATE))
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples differentiated at a time.")] = 1024,
    memory_budget: Annotated[
        float,
        typer.Option(help="Kept between products: a share of free memory, or bytes if above 1."),
    ] = 0.25,
    parameters: Parameters = None,
    logit_memory: Annotated[
        int, typer.Option(help="Bytes that arrays of rows × classes may take.", min=0)
    ] = LOGIT_MEMORY,
    class_dim: Annotated[
        int | None,
        typer.Option(help="Dimension of the logits with the classes, if not the last."),
    ] = None,
    frequent: Annotated[
        int | None,
        typer.Option(help="The so many most frequent classes, the rest as one group.", min=1),
    ] = None,
    dtype: Annotated[Precision | None, typer.Option(help="Default: as the model.")] = None,
    device: Annotated[
        str | None, typer.Option(help='"cpu" or "cuda"; default: as the model.')
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Of each null.", min=2)] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Every layer too: features, errors, G^l, weights.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Attribute the spectrum of a net: built in and trained here, or your own.

    Examples:

      deepspec attribute --data digits --model convnet --out runs/convnet

      deepspec attribute --model mynet.py:build --weights mynet.safetensors
      --data mydata.py:train --test-data mydata.py:test --out runs/mynet

      torchrun --nproc-per-node 4 -m deepspec attribute --batch-size 250 --out runs/four
    """
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device, found none; leave --device out")
    if not math.isfinite(memory_budget):
        raise ValueError(f"expected --memory-budget as a share or bytes, got {memory_budget}")
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "memory_budget": int(memory_budget) if memory_budget > 1 else memory_budget,
        "dtype": None if dtype is None else getattr(torch, dtype.value),
        "device": device,
        "parameters": parameters or None,
        "logit_memory": logit_memory,
        "class_dim": class_dim,
    }
    configuration = {
        "command": "attribute",
        "data": data,
        "test_data": test_data,
        "model": model,
        "weights": None if weights is None else str(weights),
        "convention": convention.value,
        "per_class": per_class or (PER_CLASS if data == DIGITS else None),
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "memory_budget": memory_budget,
        "dtype": None if dtype is None else dtype.value,
        "device": device,
        "parameters": parameters or None,
        "logit_memory": logit_memory,
        "class_dim": class_dim,
        "frequent": frequent,
        "draws": draws,
        "layers": layers,
        "seed": seed,
    }
    _run(
        out,
        overwrite,
        as_json,
        lambda group: prepare(
            model,
            weights,
            data,
            test_data,
            per_class,
            epochs,
            learning_rate,
            seed,
            {**options, "group": group},
        ),
        configuration,
        lambda net, place: _attribute(net, convention, seed, draws, place, frequent, layers),
    )


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that attribute or demo wrote.")],
    out: Annotated[Path, typer.Option(help="Folder to write the new report to.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw the report again from saved numbers.

    Example: deepspec report runs/demo --out runs/demo-again
    """
    extra = extra_entries(folder)
    write_report(Attribution.load(folder), out, overwrite=overwrite, extra=extra)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "report": str(out / "report.html")}))
    else:
        typer.echo(out / "report.html")


def _attribute(
    net: Net,
    convention: Papers,
    seed: int,
    draws: int | None,
    checkpoint: Path,
    frequent: int | None = None,
    layers: bool = False,
) -> Attribution:
    chosen: Convention = convention.value
    problem, groups = net.problem, None
    if frequent is not None:
        groups = frequent_classes(problem.labels, problem.num_classes, frequent)
    return attribute(
        net.problem,
        test=net.test,
        untrained=net.as_built,
        convention=chosen,
        seed=seed,
        draws=draws,
        groups=groups,
        checkpoint=checkpoint,
        layers=layers,
        weight_decay=None if net.training is None else net.training.weight_decay,
    )


def _run(
    out: Path,
    overwrite: bool,
    as_json: bool,
    prepare: Callable[[ProcessGroup | None], Net],
    configuration: dict[str, Any],
    work: Callable[[Net, Path], Attribution],
) -> None:
    """The one job of both commands: net, attribution, folder, table.

    Finished stages are kept beside ``out`` until it is written, so that a job which is killed goes
    on with the same command.
    """
    unfinished = out.with_name(f".{out.name}.unfinished")
    with launched(configuration.get("device")) as group, ExitStack() as stack:
        # Of several processes only the first one writes.
        place = stack.enter_context(new_folder(out, overwrite=overwrite)) if speaks() else None
        start = time.perf_counter()
        net = prepare(group)
        prepared = time.perf_counter()
        found = work(net, unfinished)
        done = time.perf_counter()
        extra = {
            "configuration": configuration,
            "training": None if net.training is None else vars(net.training),
            "seconds": {"preparing": prepared - start, "attribution": done - prepared},
        }
        if place is None:
            return
        fill(place, found, extra)
    shutil.rmtree(unfinished, ignore_errors=True)
    if as_json:
        typer.echo(json.dumps(_findings(found, out), indent=1, ensure_ascii=False))
    else:
        show(found, net, out, time.perf_counter() - start)


def _findings(found: Attribution, out: Path) -> dict[str, Any]:
    """What a script would ask for."""
    return {
        "folder": str(out),
        "summary": found.summary(),
        "splits": {
            name: {
                "samples": split.samples,
                "loss": split.loss,
                "error_rate": split.error_rate,
                "trace": split.trace,
                "top": split.top.tolist(),
                "tables": {
                    title: rows for title, rows in found.tables().items() if f"({name})" in title
                },
            }
            for name, split in found.splits.items()
        },
        "seconds": found.seconds,
    }


def show(found: Attribution, net: Net, out: Path, seconds: float) -> None:
    """The net, the conclusion, and the tables a person reads first."""
    # Names of the user's may look like markup, or like something to highlight.
    console = Console(markup=False, highlight=False)
    console.print(
        f"{net.problem.size:,} parameters, {net.problem.num_classes} classes; "
        + ", ".join(
            f"{name}: {split.samples:,} samples, error {split.error_rate:.2%}, "
            f"loss {split.loss:.2e}"
            for name, split in found.splits.items()
        )
    )
    console.print()
    console.print(found.summary())
    title = "What goes when the cause is removed (train)"
    head = ["feature", "said cause", "goes with it", "with a null, at most", "verdict"]
    rows = []
    for finding in found.train.findings:
        claim = CLAIMS[finding.claim]
        nulls = "\n".join(
            f"{float(shares.max()):.0%} {name}" for name, shares in finding.nulls.items()
        )
        rows.append([claim.feature, claim.cause, removed(finding), nulls, finding.answer])
    console.print(plain_table(title, head, rows))
    for title, (head, *rows) in found.tables().items():
        if title.startswith(("Parts of G, jmlr2020", "Outliers predicted")) and "train" in title:
            console.print(plain_table(title, head, rows))
    console.print(f"{out / 'report.html'}  ({seconds:.0f} s)", soft_wrap=True)


def plain_table(title: str, head: list[str], rows: list[list[str]]) -> Table:
    """A table whose cells are text, whatever they look like."""
    table = Table(*map(escape, head), title=escape(title))
    for row in rows:
        table.add_row(*map(escape, row))
    return table
