"""One process and several give the same bits; and no rank waits for one that is gone."""

import json
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.multiprocessing as mp

from deepspec import Problem
from deepspec.classifier.shares import Shares
from deepspec.neural_tangent_kernel import accumulation
from deepspec.storage.checkpoint import load_state
from tests.deepspec import distributed_cases as cases


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch):
    """Threads share sums out, so bits depend on how many there are; and small blocks."""
    monkeypatch.setattr(accumulation, "ROWS_AT_LEAST", 8)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def started(size: int, folder: Path, seconds: float = 600.0) -> list[int | None]:
    """Exit codes of so many processes, once all have ended."""
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("127.0.0.1", 0))
        ports = [str(free.getsockname()[1]) for free in (one, other)]
    (folder / "ports").write_text(" ".join(ports))
    context = mp.get_context("spawn")
    processes = [
        context.Process(target=cases.work, args=(rank, size, str(folder))) for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    left = [process for process in processes if process.is_alive()]
    for process in left:
        process.kill()
    assert not left, "processes that hang"
    return [process.exitcode for process in processes]


def expected_numbers(size: int, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """One process's, whose plan the others follow."""
    found = {}
    for case in cases.cases(size):
        found[case[0]], plan = cases.all_numbers(case)
        (folder / f"{case[0]}.json").write_text(json.dumps(plan))
    return found


def require_equal(expected: dict[str, dict[str, torch.Tensor]], folder: Path, rank: int) -> None:
    for case, numbers in expected.items():
        found = safetensors.torch.load_file(folder / f"{case} of {rank}.safetensors")
        assert found.keys() == numbers.keys()
        for name, value in numbers.items():
            same = torch.equal(found[name].nan_to_num(nan=-7.0), value.nan_to_num(nan=-7.0))
            assert same, f"{case}, rank {rank}: {name}"


def test_two_processes_are_one(tmp_path: Path) -> None:
    expected = expected_numbers(2, tmp_path)
    # Both lost the other one in the end, and say so by their status.
    assert started(2, tmp_path) == [1, 2]
    assert [(tmp_path / f"done {rank}").exists() for rank in (0, 1)] == [True, True]
    for rank in (0, 1):
        require_equal(expected, tmp_path, rank)
    said = [(tmp_path / f"said {rank}").read_text() for rank in (0, 1)]
    assert "report.html" in said[0]
    assert "exists" in said[0]
    # Nothing but the other one's error, which that one has not ended after.
    assert said[1].startswith("error: rank 0 on ")
    assert len(said[1].splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith((".", "out"))} == {
        "out"
    }
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["result"]["plan"]["ranks"]


def test_three_processes_are_one_and_end_when_one_is_killed(tmp_path: Path) -> None:
    expected = expected_numbers(3, tmp_path)
    whole = cases.long_run(cases.problem("float64", 2, memory_budget=0), None)
    assert started(3, tmp_path) == [1, 1, -9]
    for rank in (0, 2):
        require_equal(expected, tmp_path, rank)
    assert [(tmp_path / f"done {rank}").exists() for rank in range(3)] == [True, True, False]
    # What was saved goes on, on one process, and ends as if nothing had happened.
    manifest, _ = load_state(tmp_path / "checkpoint")
    assert (manifest["plan"]["ranks"], manifest["plan"]["backend"]) == (3, "gloo")
    chosen = cases.problem("float64", 2, memory_budget=0)
    resumed = cases.long_run(chosen, tmp_path / "checkpoint")
    assert chosen.engine.spent["pullback"] < 2 * cases.STOP
    assert torch.equal(resumed.ritz_values, whole.ritz_values)
    assert torch.equal(resumed.ritz_weights, whole.ritz_weights)


@pytest.mark.parametrize(
    ("batches", "ranks", "bounds"),
    [(5, 2, (0, 3, 5)), (5, 3, (0, 2, 4, 5)), (2, 4, (0, 1, 1, 2, 2)), (3, 3, (0, 1, 2, 3))],
)
def test_shares_are_contiguous_and_the_first_has_one(
    batches: int, ranks: int, bounds: tuple[int, ...]
) -> None:
    shares = Shares.equal([2] * batches, [2] * batches, ranks, 0)
    assert shares.bounds == bounds
    assert len(shares.mine) >= 1
    assert shares.rows[-1].stop == shares.count == 2 * batches


def test_a_group_is_one_of_torch(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a process group, got 'gloo'"):
        cases.problem("float32", 2, group="gloo")


def test_a_loader_with_shares_of_its_own_is_refused_by_one_process() -> None:
    data = torch.utils.data.TensorDataset(*cases.data(torch.float32))
    sampler = torch.utils.data.DistributedSampler(data, num_replicas=2, rank=0)
    loader = torch.utils.data.DataLoader(data, sampler=sampler)
    with pytest.raises(ValueError, match="give the Dataset, and group="):
        Problem(cases.net(), loader)
