"""The shell: ``deepspec layers``."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from deepspec.cli.commands import Overwrite, Precision, Seed, plain_table
from deepspec.cli.inputs import DIGITS, EPOCHS, LEARNING_RATE, PER_CLASS, prepare
from deepspec.layerwise import Layers, layer_structure, layers_in_words
from deepspec.layerwise.layer import Layer
from deepspec.layerwise.structure import WEIGHT
from deepspec.layerwise.table import MEASURES
from deepspec.report.layers_html import write_layers


class Sharing(StrEnum):
    """How positions that share a weight count."""

    reduce = "reduce"
    expand = "expand"


def layers_command(
    data: Annotated[
        str,
        typer.Option(help='"digits", or module:function or file.py:function returning data.'),
    ] = DIGITS,
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
    layer: Annotated[
        list[str] | None,
        typer.Option(help="By name; may be given again. Default: every layer."),
    ] = None,
    shared: Annotated[
        Sharing,
        typer.Option(
            help="Positions that share a weight: inputs averaged and errors summed, or each a "
            "replicate."
        ),
    ] = Sharing.reduce,
    weight_decay: Annotated[
        float | None,
        typer.Option(help="That the net was trained with: to hold W against its class part."),
    ] = None,
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
    dtype: Annotated[Precision | None, typer.Option(help="Default: as the model.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write a page with figures to.")
    ] = None,
    overwrite: Overwrite = False,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at a net layer by layer: features, errors, gradients, weights, neural collapse.

    One row a layer, one column a measure (Papyan 2020, §7).

    Examples:

      deepspec layers --model mlp

      deepspec layers --model mynet.py:build --weights mynet.safetensors --data mydata.py:train
      --layer features.3 --json
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "dtype": None if dtype is None else getattr(torch, dtype.value),
    }
    net = prepare(model, weights, data, None, per_class, epochs, learning_rate, seed, options)
    layers = Layers(net.problem, shared=shared.value)
    chosen = list(layers) if layer is None else [layers[name] for name in layer]
    if weight_decay is None and net.training is not None:
        weight_decay = net.training.weight_decay
    found_layers = [layer_structure(one, weight_decay) for one in chosen]
    rows = {one.name: one.measures for one in found_layers}
    sentence = layers_in_words(found_layers)
    page = None if out is None else write_layers(found_layers, out, overwrite=overwrite)
    notes = [note for one in chosen for note in one.notes]
    if as_json:
        found = {
            "layers": {
                one.name: {
                    "kind": one.kind,
                    "parameters": one.own.size,
                    "width_in": one.width_in,
                    "width_out": one.width_out,
                    "measures": {
                        name: None if math.isnan(value) else value
                        for name, value in rows[one.name].items()
                    },
                }
                for one in chosen
            },
            "shared": shared.value,
            "left_out": layers.left_out,
            "notes": notes,
            "summary": sentence,
            "page": None if page is None else str(page),
        }
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    _show(chosen, rows, layers, notes)
    typer.echo(sentence)
    if page is not None:
        typer.echo(page)


def _show(
    chosen: list[Layer], rows: dict[str, dict[str, float]], layers: Layers, notes: list[str]
) -> None:
    console = Console(markup=False, highlight=False)
    shown = [name for name in (MEASURES | WEIGHT) if any(name in row for row in rows.values())]
    shown = [n for n in shown if not all(math.isnan(r.get(n, math.nan)) for r in rows.values())]
    head = ["layer", "in → out", *shown]
    body = [
        [
            f"{one.name} ({one.kind})",
            f"{one.width_in:,} → {one.width_out:,}",
            *(_number(rows[one.name].get(name, math.nan)) for name in shown),
        ]
        for one in chosen
    ]
    # Two tables where one would be too wide to read.
    width = max(4, (console.width - 30) // 10)
    for start in range(2, len(head), width):
        columns = [0, 1, *range(start, min(start + width, len(head)))]
        title = f"{len(chosen)} layers, positions: {layers.shared}" if start == 2 else "(more)"
        console.print(
            plain_table(title, [head[i] for i in columns], [[r[i] for i in columns] for r in body])
        )
    for name in shown:
        console.print(f"{name}: {(MEASURES | WEIGHT)[name]}", soft_wrap=True)
    for name, why in layers.left_out.items():
        console.print(f"left out: {name}: {why}", soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"
