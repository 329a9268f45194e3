"""Time per product on one and on two processes, beside a model of it: products, bytes, latency.

Run by ``make bench``; alone: ``python -m bench.distributed --json FILE``. One thread a process,
so the machine should have two cores to spare. docs/distribution.md states the model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table

from bench.engine import nets
from bench.timing import once
from deepspec import GaussNewton, Hessian, Problem

# Small enough for two processes to have as much to do, large enough to be worth a pass.
BATCHES = 8


def work(rank: int, size: int, folder: str, rounds: int) -> None:
    """One process: every product, and the exchanges alone, in turn."""
    torch.set_num_threads(1)
    place, group = Path(folder), None
    if size > 1:
        store = f"file://{place / 'store'}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
        group = dist.group.WORLD
    found: dict[str, dict[str, Any]] = {}
    for name, (model, X, y) in nets().items():
        options: dict[str, Any] = {"batch_size": len(y) // BATCHES, "memory_budget": 0}
        problem = Problem(model.cpu(), (X.cpu(), y.cpu()), group=group, **options)
        v = torch.randn(problem.size, generator=torch.Generator().manual_seed(0))
        G, H, ours = GaussNewton(problem), Hessian(problem), problem.group
        vector = torch.zeros(1, problem.size)
        timed = {
            "gradient": problem.gradient,
            "G v": lambda G=G, v=v: G @ v,
            "H v": lambda H=H, v=v: H @ v,
            "agreeing on a product": lambda ours=ours, v=v: ours.require_same("test", v),
            "a sum of p numbers": lambda ours=ours, x=vector: ours.add_in_order(x, [x] * ours.rank),
            "a sum of one number": lambda ours=ours, x=vector: ours.add_in_order(
                x[:, :1].clone(), [x[:, :1]] * ours.rank
            ),
        }
        seconds: dict[str, list[float]] = {key: [] for key in timed}
        own: dict[str, list[float]] = {key: [] for key in timed}
        for turn in range(rounds + 1):
            for key, product in timed.items():
                begin = time.process_time()
                took = once(product)
                if turn:
                    seconds[key].append(took)
                    own[key].append(time.process_time() - begin)
        found[name] = {
            key: [min(took), statistics.median(took), min(own[key])]
            for key, took in seconds.items()
        }
        found[name]["numbers"] = problem.size
        found[name]["plan"] = problem.plan
    if rank == 0:
        (place / f"{size}.json").write_text(json.dumps(found))


def predicted(alone: dict[str, Any], pair: dict[str, Any], product: str) -> float:
    """The least time on two processes: half the batches, an agreement, a sum of p numbers."""
    exchanges = pair["agreeing on a product"][0] + pair["a sum of p numbers"][0]
    return alone[product][0] / 2 + exchanges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2):
            mp.spawn(work, (size, folder, options.rounds), nprocs=size)
        one, two = (json.loads((Path(folder) / f"{size}.json").read_text()) for size in (1, 2))
    columns = ("product", "1 process, ms", "2 processes, ms", "ratio", "predicted", "of CPU time")
    for name in one:
        table = Table(*columns, title=f"{name}, {one[name]['numbers']:,} parameters; least times")
        for product in ("gradient", "G v", "H v"):
            a, b = one[name][product][0], two[name][product][0]
            model = predicted(one[name], two[name], product)
            # Where others use the cores, too, what the first process computes says more.
            computed = two[name][product][2] / one[name][product][2]
            row = (f"{1e3 * a:.1f}", f"{1e3 * b:.1f}", f"{b / a:.2f}", f"{model / a:.2f}")
            row = (*row, f"{computed:.2f}")
            table.add_row(product, *row)
            two[name][f"{product}: predicted"] = model
        for exchange in ("agreeing on a product", "a sum of one number", "a sum of p numbers"):
            table.add_row(exchange, "", f"{1e3 * two[name][exchange][0]:.2f}", "", "", "")
        Console().print(table)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        load = os.getloadavg()
        found = {"1": one, "2": two, "load average": load, "cores": os.cpu_count()}
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
