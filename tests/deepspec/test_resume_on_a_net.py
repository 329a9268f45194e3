"""An interrupted estimate on a net goes on to the bit, with the choices it was begun with."""

from pathlib import Path

import pytest
import torch

from deepspec import ClassStructure, GaussNewton, Hessian, Problem, spectral_density
from deepspec.storage.checkpoint import CheckpointMismatch
from tests.cases import CASES


class Stop(Exception):
    """The kill that comes in the middle of a run."""


def problem(budget: int) -> Problem:
    model, features, labels = CASES[1].build()
    return Problem(model, (features, labels), batch_size=2, memory_budget=budget)


@pytest.mark.parametrize("kind", ["G", "Hess", "knockout", "sum"])
def test_a_resumed_density_is_bit_identical(kind: str, tmp_path: Path) -> None:
    def operator(budget: int):
        chosen = problem(budget)
        G, H = GaussNewton(chosen), Hessian(chosen)
        operators = {"G": G, "Hess": H, "sum": G + H}
        operators["knockout"] = G - ClassStructure(chosen).between_class
        return operators[kind]

    whole_run = operator(10**9)
    whole = spectral_density(whole_run, steps=20, probes=2, seed=1)

    interrupted = operator(10**9)
    interrupted.follow(whole_run.plan())
    engine = (interrupted.terms[0][1] if kind == "sum" else interrupted).problem.engine
    names = ("hvp",) if kind == "Hess" else ("pullback_product", "per_sample_pullback_product")
    count = 0
    for name in names:
        original = getattr(engine, name)

        def counted(*args: object, original=original) -> torch.Tensor:
            nonlocal count
            count += 1
            if count > 27:
                raise Stop
            return original(*args)

        setattr(engine, name, counted)
    with pytest.raises(Stop):
        spectral_density(
            interrupted, steps=20, probes=2, seed=1, checkpoint=tmp_path, checkpoint_every=0
        )
    # Another budget would hold nothing and round otherwise; the saved plan wins.
    resumed = spectral_density(operator(10**8), steps=20, probes=2, seed=1, checkpoint=tmp_path)
    assert torch.equal(resumed.ritz_values, whole.ritz_values)
    assert torch.equal(resumed.ritz_weights, whole.ritz_weights)


def test_a_checkpoint_of_another_net_is_refused(tmp_path: Path) -> None:
    spectral_density(GaussNewton(problem(0)), steps=5, seed=1, checkpoint=tmp_path)
    model, features, labels = CASES[1].build()
    with torch.no_grad():
        model[0].weight.mul_(1.01)
    other = Problem(model, (features, labels), batch_size=2)
    with pytest.raises(CheckpointMismatch, match="content"):
        spectral_density(GaussNewton(other), steps=5, seed=1, checkpoint=tmp_path)
