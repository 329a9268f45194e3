"""One piece of work, in whatever process: a small dict goes in, a small dict comes out."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from deepspec.attribution import attribute
from deepspec.attribution.split import SplitAttribution
from deepspec.dynamics.analysis import FIXED, analyse
from deepspec.dynamics.snapshots import Snapshots
from deepspec.experiments.plan import canonical, load
from deepspec.experiments.store import ANALYSED, TRAINED, Store
from deepspec.problem import Problem
from deepspec.storage.results import save_result
from deepspec.zoo.datasets import Split
from deepspec.zoo.registry import network
from deepspec.zoo.training import SNAPSHOTS, STATE, Diverged, Training, train

Outcome = dict[str, Any]
FULL = {errno.ENOSPC, errno.EDQUOT}
DONE, DIVERGED, FAILED, NO_SPACE = "done", "diverged", "failed", "no space"
CLAIMS = "claims"


def carry_out(task: Mapping[str, Any]) -> Outcome:
    """Train or analyse one run, and say in a few words how it ended.

    What it finds goes to the disk. Doing a task twice does no harm: the second time it is read.

    Parameters
    ----------
    task
        ``kind`` ("trained" or "analysed"), ``name``, ``settings``, ``folder`` of the sweep and
        ``where`` it runs: ``device``, ``threads``, ``root`` of the data, ``download``.
    """
    store, kind, name = Store(task["folder"]), task["kind"], task["name"]
    work = {TRAINED: _train, ANALYSED: _analyse}[kind]
    threads, start = torch.get_num_threads(), time.perf_counter()
    outcome: Outcome
    try:
        torch.set_num_threads(task["where"]["threads"])
        with store.working(name):
            record = store.record(kind, name)
            if record is None:
                record = work(store, task)
                store.finish(kind, name, {"settings": task["settings"], **record})
            store.forgive(name)
        outcome = {key: value for key, value in record.items() if key != "settings"}
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return {"state": NO_SPACE, "error": str(error)}
        words = f"{type(error).__name__}: {error}"
        try:
            store.fail(kind, name, task["settings"], words)
        except OSError as worse:
            return {"state": NO_SPACE, "error": str(worse)}
        outcome = {"state": FAILED, "error": words}
    finally:
        torch.set_num_threads(threads)
    return {**outcome, "seconds": time.perf_counter() - start}


def _train(store: Store, task: Mapping[str, Any]) -> Outcome:
    settings, where = task["settings"], task["where"]
    split = _split(settings, where)
    model = build(settings, split).to(where["device"])
    place = store.unfinished(TRAINED, task["name"])
    options = dict(settings["training"])
    try:
        done = train(
            model,
            *_on(split.train, where),
            **options,
            seed=settings["seed"],
            test=_on(split.test, where),
            folder=place,
            save_every=where["save_every"],
            show_progress=False,
        )
    except Diverged as error:
        shutil.rmtree(place)
        store.unfinished(TRAINED, task["name"])
        return {"state": DIVERGED, "epoch": error.epoch, "said": str(error)}
    shutil.rmtree(place / STATE)  # what a run goes on from; it is done
    return {
        "state": DONE,
        "test_error": done.test_errors[-1],
        "error": done.error_rate,
        "loss": done.losses[-1],
    }


def _analyse(store: Store, task: Mapping[str, Any]) -> Outcome:
    settings, where = task["settings"]["run"], task["where"]
    chosen = task["settings"]["analysis"]
    split = _split(settings, where)
    model = build(settings, split)
    folder = store.place(TRAINED, task["settings"]["trained"])
    snapshots = Snapshots(folder / SNAPSHOTS, model)
    tests = Training.load(folder).test_errors
    place = store.unfinished(ANALYSED, task["name"])
    for epoch in snapshots.epochs:
        into = place / f"epoch-{epoch:06d}"
        if into.is_dir():  # an earlier worker came so far
            continue
        problem = problem_of(snapshots.at(epoch), split.train, where["device"])
        found = analyse(
            problem,
            epoch=epoch,
            test_error=tests[epoch - 1] if epoch else float("nan"),
            hessian=chosen["hessian"],
            steps=chosen["steps"],
            exact_up_to=chosen["exact_up_to"],
            seed=settings["seed"],
        )
        _put(into, found)
    judged = {"none": (), "last": snapshots.epochs[-1:], "all": snapshots.epochs}
    for epoch in judged[chosen["claims"]]:
        into = place / f"{CLAIMS}-{epoch:06d}"
        if epoch == 0 or into.is_dir():
            continue
        claims = attribute(
            problem_of(snapshots.at(epoch), split.train, where["device"]),
            draws=chosen["draws"],
            steps=chosen["steps"],
            exact_up_to=chosen["exact_up_to"],
            seed=settings["seed"],
        )
        _put(into, timeless(claims.train))
    return {"state": DONE}


def build(settings: Mapping[str, Any], split: Split) -> torch.nn.Module:
    """The net of a run's settings, untrained."""
    options = {key: value for key, value in settings["net"].items() if key != "name"}
    name, seed = settings["net"]["name"], settings["seed"]
    return network(name, split.shape, split.num_classes, seed, **options)


def problem_of(model: torch.nn.Module, data: Any, device: str = "cpu") -> Problem:
    """A Problem whose products are computed the same way every time, whatever is faster today."""
    problem = Problem(model, data, device=device, memory_budget=0)
    problem.plan = {**problem.plan, **FIXED}
    return problem


def timeless(split: SplitAttribution) -> SplitAttribution:
    """Without what it took: that differs from run to run."""
    return dataclasses.replace(split, seconds_by_stage={})


def _put(place: Path, result: Any) -> None:
    """Save a result so that its folder appears whole."""
    aside = place.with_name(f".{place.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        save_result(aside, result)
        aside.replace(place)
    except BaseException:
        with suppress(OSError):
            shutil.rmtree(aside)
        raise


def _split(settings: Mapping[str, Any], where: Mapping[str, Any]) -> Split:
    key = canonical({"data": settings["data"], "net": settings["net"], "seed": settings["seed"]})
    return _loaded(key, where["root"], where["download"])


@lru_cache(maxsize=2)
def _loaded(key: str, root: str | None, download: bool) -> Split:
    """Many runs in a row differ in the learning rate alone."""
    settings = json.loads(key)
    return load(settings["data"], settings["net"]["name"], settings["seed"], root, download)


def _on(
    data: tuple[torch.Tensor, torch.Tensor], where: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = data
    return inputs.to(where["device"]), labels.to(where["device"])
