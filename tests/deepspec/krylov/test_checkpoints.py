"""Killed at any moment and started again, a run ends in the same bits; another run is refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from deepspec.krylov import (
    NotConverged,
    joined_spectrum,
    lanczos,
    log_spectral_density,
    spectral_density,
    top_eigenpairs,
)
from deepspec.storage.checkpoint import Checkpoint, CheckpointMismatch, load_state, save_state
from tests.deepspec.krylov.cases import (
    Breaking,
    Diagonal,
    Interrupted,
    eigenvalues,
    normal,
    rotated,
)

ROOT = Path(__file__).resolve().parents[3]
VICTIM = """
import sys, time, torch
sys.path.insert(0, {root!r})
from deepspec.krylov import spectral_density, top_eigenpairs
from tests.deepspec.krylov.cases import Diagonal

class Slow(Diagonal):
    def _product(self, columns):
        time.sleep(0.004)
        return super()._product(columns)

A = Slow(torch.linspace(-1, 3, 2_000, dtype=torch.float64) ** 3)
print("ready", flush=True)
density = spectral_density(A, 60, 3, checkpoint={folder!r} + "/density", checkpoint_every=0)
pairs = top_eigenpairs(A, 3, tol=1e-2, checkpoint={folder!r} + "/pairs", checkpoint_every=0)
density.save({folder!r} + "/result-density")
pairs.save({folder!r} + "/result-pairs")
"""


def start(folder: Path) -> subprocess.Popen:
    code = VICTIM.format(root=str(ROOT), folder=str(folder))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, cwd=ROOT
    )


def test_a_run_that_is_killed_ends_in_the_same_bits(tmp_path: Path) -> None:
    with start(tmp_path / "whole") as whole:
        whole.communicate(timeout=120)
    assert whole.returncode == 0
    rng, kills = random.Random(0), 0
    for attempt in range(30):
        with start(tmp_path / "broken") as victim:
            if attempt < 2:
                victim.stdout.readline()  # imports are over, the work begins
                time.sleep(rng.uniform(0.2, 0.5))
                victim.send_signal(signal.SIGKILL)
            victim.communicate(timeout=120)
        kills += victim.returncode == -signal.SIGKILL
        if victim.returncode == 0:
            break
    assert kills >= 1
    for result in ("result-density", "result-pairs"):
        _, expected = load_state(tmp_path / "whole" / result)
        _, found = load_state(tmp_path / "broken" / result)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


SPECTRUM = torch.linspace(-1, 2, 300, dtype=torch.float64) ** 3


@pytest.mark.parametrize("after", [1, 7, 20, 23, 31])
@pytest.mark.parametrize(
    "estimate",
    [
        lambda A, path: lanczos(A, 35, normal(300), checkpoint=path, checkpoint_every=0).diagonal,
        lambda A, path: (
            lanczos(A, 35, normal(300), "full", checkpoint=path, checkpoint_every=0).ritz_weights
        ),
        lambda A, path: spectral_density(A, 20, 2, checkpoint=path, checkpoint_every=0).values,
        lambda A, path: log_spectral_density(A, 20, 2, checkpoint=path, checkpoint_every=0).values,
        lambda A, path: (
            top_eigenpairs(A, 5, max_subspace=11, checkpoint=path, checkpoint_every=0).vectors
        ),
        lambda A, path: joined_spectrum(A, 2, 9, checkpoint=path, checkpoint_every=0).values,
    ],
)
def test_wherever_it_stops_it_goes_on(estimate, after: int, tmp_path: Path) -> None:
    straight = estimate(Breaking(SPECTRUM, -1), None)
    path = tmp_path / "checkpoint"
    with pytest.raises(Interrupted):
        estimate(Breaking(SPECTRUM, after), path)
    rest = Breaking(SPECTRUM, -1)
    assert torch.equal(estimate(rest, path), straight)
    again = Breaking(SPECTRUM, -1)
    assert torch.equal(estimate(again, path), straight)
    assert again.matvecs <= 1  # at most the check of the pairs


def test_a_compression_can_be_checkpointed(tmp_path: Path) -> None:
    A = rotated(eigenvalues("indefinite"))
    B = A.deflate(top_eigenpairs(A, 3))
    first = spectral_density(B, 12, checkpoint=tmp_path)
    assert torch.equal(first.values, spectral_density(B, 12, checkpoint=tmp_path).values)
    C = A.deflate(top_eigenpairs(A, 3, "smallest"))
    with pytest.raises(CheckpointMismatch, match="projector"):
        spectral_density(C, 12, checkpoint=tmp_path)


def test_another_run_is_refused_with_the_difference_named(tmp_path: Path) -> None:
    A = rotated(eigenvalues("indefinite"))
    spectral_density(A, 10, checkpoint=tmp_path / "density")
    for other, named in (
        ({"steps": 11}, "steps: 11 here, 10 there"),
        ({"probes": 2}, "probes: 2 here, 1 there"),
        ({"seed": 4}, "seed: 4 here, 0 there"),
    ):
        arguments = {"steps": 10, **other}
        with pytest.raises(CheckpointMismatch, match=named):
            spectral_density(A, checkpoint=tmp_path / "density", **arguments)
    with pytest.raises(CheckpointMismatch, match="matrix: "):
        spectral_density(
            rotated(eigenvalues("indefinite"), seed=1), 10, checkpoint=tmp_path / "density"
        )
    coarse = rotated(eigenvalues("indefinite"), torch.float32)
    with pytest.raises(CheckpointMismatch, match=r"dtype: torch\.float32 here"):
        spectral_density(coarse, 10, checkpoint=tmp_path / "density")
    with pytest.raises(CheckpointMismatch, match="factor: 2"):
        spectral_density(2 * A, 10, checkpoint=tmp_path / "density")
    with pytest.raises(CheckpointMismatch, match="estimator: top_eigenpairs here, density there"):
        top_eigenpairs(A, 2, checkpoint=tmp_path / "density")
    top_eigenpairs(A, 2, checkpoint=tmp_path / "pairs")
    with pytest.raises(CheckpointMismatch, match="which"):
        top_eigenpairs(A, 2, "smallest", checkpoint=tmp_path / "pairs")
    lanczos(A, 3, normal(60), checkpoint=tmp_path / "run")
    with pytest.raises(CheckpointMismatch, match="start"):
        lanczos(A, 3, normal(60, 1), checkpoint=tmp_path / "run")


def test_the_default_fingerprint_notices_other_data_and_not_rounding(tmp_path: Path) -> None:
    data = torch.linspace(0, 1, 50, dtype=torch.float64)
    spectral_density(Diagonal(data), 5, checkpoint=tmp_path)
    rounded = data * (1 + 1e-16)
    spectral_density(Diagonal(rounded), 5, checkpoint=tmp_path)
    changed = data.clone()
    changed[7] += 1e-6
    with pytest.raises(CheckpointMismatch, match="product"):
        spectral_density(Diagonal(changed), 5, checkpoint=tmp_path)


def test_a_state_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch) -> None:
    save_state(tmp_path, {"kind": "old"}, {"x": torch.zeros(3)})
    real, calls = os.replace, []

    def fails_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("the disk is full")
        real(source, target)

    monkeypatch.setattr(os, "replace", fails_second)
    with pytest.raises(OSError, match="full"):
        save_state(tmp_path, {"kind": "new"}, {"x": torch.ones(3)})
    monkeypatch.undo()
    manifest, arrays = load_state(tmp_path)
    assert manifest["kind"] == "old"
    assert torch.equal(arrays["x"], torch.zeros(3))
    save_state(tmp_path, {"kind": "new"}, {"x": torch.ones(3)})
    assert load_state(tmp_path)[0]["kind"] == "new"
    assert len(list(tmp_path.iterdir())) == 2  # what the failed write left is gone


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        load_state(tmp_path)
    assert Checkpoint(tmp_path, 0, {}).load() is None
    save_state(tmp_path, {}, {"x": torch.zeros(3)})
    (arrays,) = tmp_path.glob("*.safetensors")
    content = bytearray(arrays.read_bytes())
    content[-1] ^= 1
    arrays.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_state(tmp_path)
    arrays.unlink()
    with pytest.raises(FileNotFoundError, match="is gone"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: manifest.pop("arrays"),
        lambda manifest: manifest.pop("sha256"),
        lambda manifest: manifest.pop("progress"),
        lambda manifest: manifest.pop("plan"),
        lambda manifest: manifest.update(configuration="x"),
        lambda manifest: manifest.update(progress=[3]),
        lambda manifest: manifest.update(arrays=4),
    ],
)
def test_a_damaged_manifest_is_named(damage, tmp_path: Path) -> None:
    Checkpoint(tmp_path, 0, {"steps": 3}).save({"done": 1}, {"x": torch.zeros(3)})
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    damage(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json .* is damaged .*; delete the folder"):
        Checkpoint(tmp_path, 0, {"steps": 3}).load()


def test_a_stray_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".x.part").mkdir()
    save_state(tmp_path, {}, {"x": torch.zeros(3)})
    assert (tmp_path / ".x.part").is_dir()


def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    A = Breaking(SPECTRUM, 1)  # one product is the fingerprint's at most
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=r"folder that can be written to.*give another path"):
            lanczos(A, 5, normal(300), checkpoint=path)


def test_what_did_not_converge_goes_on_with_more_products(tmp_path: Path) -> None:
    straight = top_eigenpairs(Breaking(SPECTRUM, -1), 5, tol=1e-4)
    with pytest.raises(NotConverged):
        top_eigenpairs(Breaking(SPECTRUM, -1), 5, tol=1e-4, max_matvecs=20, checkpoint=tmp_path)
    rest = Breaking(SPECTRUM, -1)
    pairs = top_eigenpairs(rest, 5, tol=1e-4, checkpoint=tmp_path)
    assert torch.equal(pairs.vectors, straight.vectors)
    assert rest.matvecs == straight.matvecs - 20


def test_the_same_run_drawn_otherwise_shares_its_checkpoint(tmp_path: Path) -> None:
    spectral_density(Breaking(SPECTRUM, -1), 20, 2, checkpoint=tmp_path)
    again = Breaking(SPECTRUM, -1)
    log_spectral_density(again, 20, 2, checkpoint=tmp_path)
    assert again.matvecs == 0
