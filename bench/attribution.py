"""The main job in multiples of one gradient: ``python -m bench.attribution [--json FILE]``.

Nets as in the tables of the changelog, in float32: an MLP 64-3×1024-10 with batch normalisation
(2.2 million parameters) on 130 and on 400 digits with 5 draws, and the digits demo with all its
splits. ``--with-vgg11`` adds VGG11 with its 28 million parameters on 130 digits, which takes a
while. The gradient is timed before and after, the faster one counts, so that a machine that others
use makes the ratio look worse, not better; beside the clock's ratio stands that of the processor's
own time, which counts no one else's work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import deepspec
from deepspec.cli.inputs import EPOCHS, LEARNING_RATE, PER_CLASS, built_in
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp, vgg11
from deepspec.zoo.training import train

Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"clock": time.perf_counter, "processor": time.process_time}


def gradient_seconds(problem: deepspec.Problem, repeats: int = 7) -> dict[str, float]:
    """The fastest of several gradients, by each clock."""
    best = dict.fromkeys(CLOCKS, float("inf"))
    for _ in range(repeats):
        begin = {name: clock() for name, clock in CLOCKS.items()}
        problem.gradient()
        for name, clock in CLOCKS.items():
            best[name] = min(best[name], clock() - begin[name])
    return best


def measured(
    name: str, target: int | None, problem: deepspec.Problem, **options: Any
) -> dict[str, object]:
    """One attribution, stage by stage."""
    before = gradient_seconds(problem)
    begin = {clock: now() for clock, now in CLOCKS.items()}
    found = deepspec.attribute(problem, **options)
    total = {clock: now() - begin[clock] for clock, now in CLOCKS.items()}
    after = gradient_seconds(problem)
    gradient = {clock: min(before[clock], after[clock]) for clock in CLOCKS}
    return {
        "net": name,
        "gradient_seconds": gradient["clock"],
        "seconds": found.train.seconds_by_stage,
        "matvecs": found.train.matvecs_by_stage,
        "gradients": total["clock"] / gradient["clock"],
        "gradients_of_processor_time": total["processor"] / gradient["processor"],
        "target": target,
    }


def wide_mlp(samples: int, target: int) -> dict[str, object]:
    """Over-parametrised: p = 2.2 million, nC = 10 n."""
    data, model = digits(samples // 10), mlp(64, (1024, 1024, 1024))
    train(model, *data.train, epochs=60)
    problem = deepspec.Problem(model, data.train)
    return measured(f"MLP, n = {samples}", target, problem, draws=5)


def demo() -> dict[str, object]:
    """The digits demo, held-out digits and the untrained net included."""
    net = built_in("mlp", PER_CLASS, EPOCHS, LEARNING_RATE, 0)
    return measured("demo", None, net.problem, test=net.test, untrained=net.as_built)


def largest() -> dict[str, object]:
    """VGG11 on 130 digits, padded to 32 × 32."""
    data, model = digits(13, image=True, side=32), vgg11(channels=1)
    train(model, *data.train, epochs=20)
    return measured("VGG11, n = 130", None, deepspec.Problem(model, data.train), draws=3)


def main(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    with_vgg11: Annotated[bool, typer.Option(help="28 million parameters as well.")] = False,
) -> None:
    """Run them all and print a table."""
    rows = [wide_mlp(130, 600), wide_mlp(400, 1200), demo()]
    if with_vgg11:
        rows.append(largest())
    table = Table(
        "net", "one gradient", "stages (s)", "matvecs", "all, in gradients", "processor", "target"
    )
    for row in rows:
        table.add_row(
            str(row["net"]),
            f"{row['gradient_seconds']:.3f} s",
            str(row["seconds"]),
            str(row["matvecs"]),
            f"{row['gradients']:.0f}",
            f"{row['gradients_of_processor_time']:.0f}",
            "" if row["target"] is None else f"≤ {row['target']}",
        )
    Console().print(table)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
