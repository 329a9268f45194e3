"""The main job in multiples of one gradient: ``python -m bench.attribution [--json FILE]``.

Nets as in the tables of the changelog: an MLP 64-3×1024-10 with batch normalisation (2.2 million
parameters) on the digits, float32, 5 draws. The gradient is timed before and after, the faster one
counts, so that a machine that others use makes the ratio look worse, not better.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import deepspec
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train

TARGETS = {130: 600, 400: 1200}


def gradient_seconds(problem: deepspec.Problem, repeats: int = 7) -> float:
    """The fastest of several gradients."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        problem.gradient()
        times.append(time.perf_counter() - begin)
    return min(times)


def measured(samples: int) -> dict[str, object]:
    """One attribution, stage by stage."""
    data, model = digits(samples // 10), mlp(64, (1024, 1024, 1024))
    train(model, *data.train, epochs=60)
    problem = deepspec.Problem(model, data.train)
    before = gradient_seconds(problem)
    begin = time.perf_counter()
    found = deepspec.attribute(problem, draws=5)
    total = time.perf_counter() - begin
    gradient = min(before, gradient_seconds(problem))
    return {
        "samples": samples,
        "gradient_seconds": gradient,
        "seconds": found.train.seconds_by_stage,
        "matvecs": found.train.matvecs_by_stage,
        "gradients": total / gradient,
        "target": TARGETS[samples],
    }


def main(json_file: Annotated[Path | None, typer.Option("--json")] = None) -> None:
    """Run both sizes and print a table."""
    rows = [measured(samples) for samples in TARGETS]
    table = Table("n", "one gradient", "stages (s)", "matvecs", "all, in gradients", "target")
    for row in rows:
        table.add_row(
            str(row["samples"]),
            f"{row['gradient_seconds']:.3f} s",
            str(row["seconds"]),
            str(row["matvecs"]),
            f"{row['gradients']:.0f}",
            f"≤ {row['target']}",
        )
    Console().print(table)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
