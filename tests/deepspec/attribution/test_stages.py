"""An attribution that is killed goes on where it was, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import deepspec
from deepspec.attribution import _attribute
from deepspec.storage.checkpoint import CheckpointMismatch
from tests.cases import CASES


def attributed(
    checkpoint: Path | None, plan: dict | None = None, **changed: int
) -> deepspec.Attribution:
    model, features, labels = CASES[0].build()
    problem = deepspec.Problem(model, (features, labels), memory_budget=0)
    if plan is not None:  # of equally right ways to multiply the fastest is taken: here the same
        problem.plan = plan
    wanted = {"draws": 2, "steps": 10, "seed": 1} | changed
    return deepspec.attribute(problem, checkpoint=checkpoint, **wanted)


@pytest.mark.parametrize("stage", ["measure", "gauss_newton_side", "hessian_side"])
def test_a_killed_attribution_goes_on_to_the_bit(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attributed(None)
    plan = whole.plan

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_attribute, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            attributed(tmp_path / "run", plan)
    resumed = attributed(tmp_path / "run", plan)
    again = attributed(tmp_path / "run", plan)  # everything kept, nothing computed
    for found in (resumed, again):
        assert torch.equal(found.train.top, whole.train.top)
        assert torch.equal(found.train.hessian_projected, whole.train.hessian_projected)
        for ours, theirs in zip(
            (*found.train.spectra, *found.train.hessian_spectra),
            (*whole.train.spectra, *whole.train.hessian_spectra),
            strict=True,
        ):
            assert torch.equal(ours.nodes, theirs.nodes)
        for ours, theirs in zip(found.train.findings, whole.train.findings, strict=True):
            assert (ours.claim, ours.answer) == (theirs.claim, theirs.answer)
            assert ours.removed == theirs.removed or ours.removed != ours.removed
    assert again.train.matvecs_by_stage == resumed.train.matvecs_by_stage


def test_a_checkpoint_of_another_attribution_is_refused(tmp_path: Path) -> None:
    attributed(tmp_path / "run")
    with pytest.raises(CheckpointMismatch, match="seed: 2 here, 1 there"):
        attributed(tmp_path / "run", seed=2)


def test_what_a_stage_spent_is_said() -> None:
    found = attributed(None).train
    spent = found.matvecs_by_stage
    assert found.matvecs == sum(spent.values())
    assert list(spent) == ["Gram matrix of G", "causes of G", "Hess and E"]
    assert spent["Hess and E"] > 0


def test_without_second_derivatives_all_of_g_is_found() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.Hardsigmoid(), torch.nn.Linear(6, 3)
    ).double()
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = features, torch.arange(9) % 3
    found = deepspec.attribute(deepspec.Problem(model, data), draws=2, steps=5).train
    assert "Hardsigmoid" in found.without_hessian
    assert found.hessian_spectra == ()
    assert found.finding("outliers").claim == "outliers"
