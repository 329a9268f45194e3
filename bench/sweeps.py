"""What a sweep and a Recorder cost beside the work: ``python -m bench.sweeps [--json FILE]``.

A sweep's overhead is the time of one run through the engine less that of the same training and
analysis called directly; reading data is in neither, since both take it from the same cache.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

import deepspec
from deepspec.dynamics import Snapshots, analyse
from deepspec.experiments import run_sweep
from deepspec.experiments.plan import Plan
from deepspec.experiments.reading import plan_of
from deepspec.experiments.worker import build, load, problem_of
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import SNAPSHOTS, train

MOST_MILLISECONDS, BUDGET = 50.0, 0.05


def plan(seeds: int) -> Plan:
    """As many small runs as there are seeds, each analysed at two moments."""
    return plan_of(
        {
            "grid": {
                "data": ["digits"],
                "net": [{"name": "mlp", "widths": [16]}],
                "per_class": [10],
                "learning_rate": [0.05],
                "seed": list(range(seeds)),
            },
            "training": {"epochs": 10, "snapshots": [0]},
            "analysis": {"steps": 10, "hessian": False},
        }
    )


def directly(seeds: int) -> float:
    """Seconds for the same trainings and analyses without an engine."""
    several = plan(seeds)
    (cell,) = several.cells()
    spent = 0.0
    for seed in several.seed:
        settings = several.run(cell, 0.05, seed)
        split = load(settings["data"], "mlp", seed, None, False)
        model = build(settings, split)
        with tempfile.TemporaryDirectory() as place:
            begin = time.perf_counter()
            train(
                model,
                *split.train,
                **settings["training"],
                seed=seed,
                test=split.test,
                folder=place,
                show_progress=False,
            )
            snapshots = Snapshots(Path(place) / SNAPSHOTS, build(settings, split))
            for epoch in snapshots.epochs:
                problem = problem_of(snapshots.at(epoch), split.train)
                analyse(problem, epoch=epoch, hessian=False, steps=10, seed=seed)
            spent += time.perf_counter() - begin
    return spent


def sweep(seeds: int = 12, rounds: int = 5) -> dict[str, object]:
    """Milliseconds of overhead a run: a training and an analysis are two."""
    torch.set_num_threads(1)
    directly(1)
    overheads = []
    for _ in range(rounds):
        begin = time.perf_counter()
        alone = directly(seeds)
        preparing = time.perf_counter() - begin - alone
        with tempfile.TemporaryDirectory() as place:
            begin = time.perf_counter()
            run_sweep(plan(seeds), place)
            whole = time.perf_counter() - begin
        overheads.append(1e3 * (whole - alone - preparing) / (2 * seeds))
    return {
        "what": "sweep, ms a run",
        "found": statistics.median(overheads),
        "most": MOST_MILLISECONDS,
    }


def recorder(steps: int = 4000) -> dict[str, object]:
    """The share of a loop's time that a Recorder with a budget of 5 % takes."""
    data, model = digits(100), mlp()
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    recorder = deepspec.Recorder(model, data.train, what=["loss", "edge"], every=20, budget=BUDGET)
    inputs, labels = data.train
    begin, measuring = time.perf_counter(), 0.0
    for step in range(steps):
        optimiser.zero_grad()
        chosen = torch.randint(len(labels), (128,))
        torch.nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
        optimiser.step()
        before = time.perf_counter()
        recorder.record(step)
        measuring += time.perf_counter() - before
    whole = time.perf_counter() - begin
    first = recorder.rows[0]["seconds"]
    return {
        "what": "Recorder, share of training, the first measurement apart",
        "found": (measuring - first) / (whole - measuring),
        "most": BUDGET,
    }


def main(json_file: Annotated[Path | None, typer.Option("--json")] = None) -> None:
    """Run both and print a table."""
    rows = [sweep(), recorder()]
    table = Table("what", "found", "at most")
    for row in rows:
        table.add_row(str(row["what"]), f"{row['found']:.3g}", f"{row['most']:g}")
    Console().print(table)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    typer.run(main)
