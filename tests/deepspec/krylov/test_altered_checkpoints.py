"""A checkpoint whose entries contradict each other is refused; no run goes on without end."""

import copy
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from deepspec.krylov import (
    NotConverged,
    baselines,
    frobenius_norm,
    lanczos,
    log_spectral_density,
    top_eigenpairs,
)
from deepspec.storage.checkpoint import load_state, save_state
from tests.deepspec.krylov.cases import Breaking, Interrupted, normal

SPECTRUM = torch.linspace(-1, 2, 60, dtype=torch.float64) ** 3
RUNS: dict[str, Callable[[Any, Path], Any]] = {
    "pairs": lambda A, path: top_eigenpairs(A, 4, checkpoint=path, checkpoint_every=0),
    "lanczos": lambda A, path: lanczos(
        A, 12, normal(60), "full", checkpoint=path, checkpoint_every=0
    ),
    "density": lambda A, path: log_spectral_density(A, 8, 3, checkpoint=path, checkpoint_every=0),
    "sketch": lambda A, path: frobenius_norm(A, 40, checkpoint=path, checkpoint_every=0),
    "subspace": lambda A, path: baselines.subspace_iteration(
        A, k=3, iterations=9, checkpoint=path, checkpoint_every=0
    ),
    "moments": lambda A, path: baselines.kernel_polynomial_density(
        A, 8, 3, checkpoint=path, checkpoint_every=0
    ),
}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What each estimator leaves when it is stopped early and late."""
    found: dict[str, list] = {}
    for name, run in RUNS.items():
        for after in {"sketch": (12, 33), "moments": (34, 44)}.get(name, (7, 22)):
            path = tmp_path_factory.mktemp(f"{name}-{after}")
            with suppress(Interrupted):
                run(Breaking(SPECTRUM, after), path)
            found.setdefault(name, []).append(load_state(path))
    return found


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Where the leaves are."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for name, value in inner:
        found += places(value, (*path, name)) if isinstance(value, dict | list) else [(*path, name)]
    return found


def altered(rng: random.Random, manifest: dict, arrays: dict) -> tuple[dict, dict, str]:
    """The same state with one thing in its progress or its arrays that is something else."""
    manifest, arrays = copy.deepcopy(manifest), dict(arrays)
    progress = manifest["progress"]
    if rng.random() < 0.5 and places(progress):
        *path, last = rng.choice(places(progress))
        inner = progress
        for name in path:
            inner = inner[name]
        old = inner[last]
        wild = [None, "x", -1, 10**9, [], {}, "nan", "-0x1p3", True]
        near = [old + 1, old - 1] if type(old) is int else []
        inner[last] = rng.choice(near or wild) if rng.random() < 0.6 else rng.choice(wild)
        if rng.random() < 0.2:
            del inner[last]
        return manifest, arrays, f"{path}, {last}: {old}"
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    ways = {
        "gone": lambda: None,
        "short": lambda: array[:-1].clone(),
        "long": lambda: torch.cat([array, array]),
        "dtype": lambda: array.float(),
        "nan": lambda: array * torch.nan,
        "flat": lambda: array.flatten()[: max(1, array.numel() - 1)].clone(),
    }
    way = rng.choice(sorted(ways))
    arrays[name] = ways[way]()
    if way == "gone":
        del arrays[name]
    return manifest, arrays, f"{name} {way}"


@pytest.mark.parametrize("name", RUNS)
def test_an_altered_state_is_refused_or_does_no_harm(
    name: str, states: dict[str, list], tmp_path: Path
) -> None:
    """Its sums are right: someone wrote it on purpose."""
    rng, refused, budget = random.Random(name), 0, 3000
    for index in range(25):
        state = states[name][index % len(states[name])]
        manifest, arrays, what = altered(rng, *state)
        path = tmp_path / str(index)
        save_state(path, manifest, arrays)
        A = Breaking(SPECTRUM, budget)
        try:
            RUNS[name](A, path)
        except (ValueError, NotConverged, ArithmeticError):
            refused += 1
        except Interrupted:
            pytest.fail(f"more than {budget} products after {what}")
    assert refused >= 12


def test_a_member_that_is_another_is_named(states: dict[str, list], tmp_path: Path) -> None:
    manifest, arrays = copy.deepcopy(states["pairs"][1])
    manifest["progress"]["members"][2] += 1
    save_state(tmp_path, manifest, arrays)
    with pytest.raises(ValueError, match=r"damaged \(the list of vectors is not what was saved\)"):
        RUNS["pairs"](Breaking(SPECTRUM, 10), tmp_path)
