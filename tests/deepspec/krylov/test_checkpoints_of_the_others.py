"""The trace, the moments and the subspace too go on to the bit; another run is refused."""

import os
from pathlib import Path

import pytest
import torch

from deepspec import GaussNewton, Problem
from deepspec.krylov import Estimate, frobenius_norm, trace
from deepspec.krylov.baselines import kernel_polynomial_density, subspace_iteration
from deepspec.storage.checkpoint import CheckpointMismatch
from tests.cases import CASES
from tests.deepspec.krylov.cases import Breaking, Interrupted

SPECTRUM = torch.linspace(-1, 2, 300, dtype=torch.float64) ** 3


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch) -> None:
    """A kill, unlike a loss of power, leaves what was written to the system's care."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def numbers(estimate: Estimate) -> torch.Tensor:
    return torch.tensor([estimate.value, estimate.standard_error], dtype=torch.float64)


def low_rank(A: Breaking) -> Breaking:
    """The same, but of rank 18."""
    A.diagonal = torch.where(torch.arange(300) % 17 == 0, A.diagonal, 0.0)
    return A


ESTIMATES = {
    "moments": lambda A, **where: kernel_polynomial_density(A, 9, 3, **where).moments,
    "trace": lambda A, **where: numbers(trace(A, 45, **where)),
    "norm": lambda A, **where: numbers(frobenius_norm(A, 45, **where)),
    "low rank": lambda A, **where: numbers(frobenius_norm(low_rank(A), 70, **where)),
    "subspace": lambda A, **where: subspace_iteration(A, 4, 12, **where).vectors,
}


def estimate_in(name: str, A: Breaking, path: Path | None) -> torch.Tensor:
    return ESTIMATES[name](A, checkpoint=path, checkpoint_every=0)


@pytest.mark.parametrize("after", [1, 23, 31, 39])
@pytest.mark.parametrize("name", ESTIMATES)
def test_wherever_it_stops_it_goes_on(name: str, after: int, tmp_path: Path) -> None:
    straight = ESTIMATES[name](Breaking(SPECTRUM, -1))
    with pytest.raises(Interrupted):
        estimate_in(name, Breaking(SPECTRUM, after), tmp_path)
    assert torch.equal(estimate_in(name, Breaking(SPECTRUM, -1), tmp_path), straight)
    again = Breaking(SPECTRUM, -1)
    assert torch.equal(estimate_in(name, again, tmp_path), straight)
    assert again.matvecs == 0


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_run_stopped_at_every_turn_takes_few_products_twice(name: str, tmp_path: Path) -> None:
    whole = Breaking(SPECTRUM, -1)
    expected = ESTIMATES[name](whole)
    taken, turns, found = 0, 0, None
    while found is None:
        A = Breaking(SPECTRUM, 10)
        try:
            found = estimate_in(name, A, tmp_path)
        except Interrupted:
            turns += 1
        taken += A.matvecs
        assert turns <= whole.matvecs  # else it never goes on
    assert torch.equal(found, expected)
    assert taken == whole.matvecs
    assert turns >= whole.matvecs // 10


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("write", [1, 2, 9, 14])
def test_killed_in_the_middle_of_a_write_it_goes_on(
    name: str, write: int, tmp_path: Path, monkeypatch
) -> None:
    expected = ESTIMATES[name](Breaking(SPECTRUM, -1))
    real, calls = os.replace, []

    def dies(source, target):
        calls.append(target)
        if len(calls) == write:
            raise Interrupted
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(Interrupted):
            estimate_in(name, Breaking(SPECTRUM, -1), tmp_path)
    assert torch.equal(estimate_in(name, Breaking(SPECTRUM, -1), tmp_path), expected)


def test_one_sketch_is_enough_for_the_trace_and_the_norm(tmp_path: Path) -> None:
    expected = frobenius_norm(Breaking(SPECTRUM, -1), 40)
    trace(Breaking(SPECTRUM, -1), 40, checkpoint=tmp_path)
    A = Breaking(SPECTRUM, 0)
    assert frobenius_norm(A, 40, checkpoint=tmp_path) == expected


def test_another_run_of_the_other_estimators_is_refused_too(tmp_path: Path) -> None:
    A = Breaking(SPECTRUM, -1)
    path = tmp_path / "moments"
    kernel_polynomial_density(A, 5, checkpoint=path)
    for change, named in (
        ({"steps": 6}, "steps: 6 here, 5 there"),
        ({"probes": 2}, "probes: 2 here, 1 there"),
        ({"margin": 0.1}, r"margin: 0\.1 here, 0\.05 there"),
        ({"seed": 4}, "seed: 4 here, 0 there"),
    ):
        with pytest.raises(CheckpointMismatch, match=named):
            kernel_polynomial_density(A, checkpoint=path, **{"steps": 5, **change})
    assert kernel_polynomial_density(A, 5, points=64, checkpoint=path).points == 64
    with pytest.raises(CheckpointMismatch, match="estimator: sketch here, moments there"):
        trace(A, checkpoint=path)
    trace(A, 8, checkpoint=tmp_path / "sketch")
    with pytest.raises(CheckpointMismatch, match="matvecs: 10 here, 8 there"):
        frobenius_norm(A, 10, checkpoint=tmp_path / "sketch")
    subspace_iteration(A, 2, 3, checkpoint=tmp_path / "subspace")
    with pytest.raises(CheckpointMismatch, match="iterations: 4 here, 3 there"):
        subspace_iteration(A, 2, 4, checkpoint=tmp_path / "subspace")
    other = Breaking(2 * SPECTRUM, 0)
    for estimator, arguments in (
        (kernel_polynomial_density, (5,)),
        (trace, (8,)),
        (subspace_iteration, (2, 3)),
    ):
        folder = {trace: "sketch", subspace_iteration: "subspace"}.get(estimator, "moments")
        with pytest.raises(CheckpointMismatch, match="sum: "):
            estimator(other, *arguments, checkpoint=tmp_path / folder)


def test_the_range_of_another_run_is_refused_before_its_moments_begin(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        kernel_polynomial_density(
            Breaking(SPECTRUM, 20), 5, checkpoint=tmp_path, checkpoint_every=0
        )
    with pytest.raises(CheckpointMismatch, match="margin"):
        kernel_polynomial_density(Breaking(SPECTRUM, 0), 5, margin=0.2, checkpoint=tmp_path)


def test_on_a_net_the_choices_it_was_begun_with_are_made_again(tmp_path: Path) -> None:
    def operator(budget: int) -> GaussNewton:
        model, features, labels = CASES[1].build()
        return GaussNewton(Problem(model, (features, labels), batch_size=2, memory_budget=budget))

    whole = operator(10**9)
    expected = trace(whole, 24)
    stopped, calls = operator(10**9), []
    stopped.follow(whole.plan())
    engine = stopped.problem.engine
    product = engine.per_sample_pullback_product

    def breaks(kernel, columns):
        calls.append(columns.shape[1])
        if len(calls) > 2:
            raise Interrupted
        return product(kernel, columns)

    engine.per_sample_pullback_product = breaks
    with pytest.raises(Interrupted):
        trace(stopped, 24, checkpoint=tmp_path, checkpoint_every=0)
    # Another budget would hold nothing and round otherwise; the saved plan wins.
    assert trace(operator(10**8), 24, checkpoint=tmp_path) == expected
