"""A plan is of one net and one version of PyTorch, and has only choices that there are."""

import pytest
import torch
from torch import nn

from deepspec import GaussNewton, Hessian, Problem, top_eigenpairs
from deepspec.storage.checkpoint import load_state

X = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
y = torch.arange(9) % 3


def net(width: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3)).double()


def decided(width: int = 5) -> Problem:
    problem = Problem(net(width), (X, y))
    block = torch.eye(problem.size, 3, dtype=torch.float64)
    Hessian(problem) @ block, GaussNewton(problem) @ block
    return problem


def test_a_plan_says_whose_it_is_and_is_followed() -> None:
    first, second = decided(), Problem(net(), (X, y))
    assert first.plan["torch"] == torch.__version__
    second.plan = first.plan
    assert second.plan == first.plan


def test_a_plan_of_another_net_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a plan of this net"):
        Problem(net(6), (X, y)).plan = decided(5).plan
    single = Problem(net(), (X, y), dtype=torch.float32)
    with pytest.raises(ValueError, match="expected a plan of this net"):
        single.plan = decided().plan
    with pytest.raises(ValueError, match="no net that it names"):
        Problem(net(), (X, y)).plan = {"forward mode": "yes"}


def test_a_plan_of_another_pytorch_is_decided_anew() -> None:
    first, second = decided(), decided()
    wrong = {**first.plan, "torch": "1.13.0", "hessian: nesting": "reverse over reverse"}
    with pytest.warns(RuntimeWarning, match=r"made with PyTorch 1\.13\.0"):
        second.plan = wrong
    assert "hessian: nesting" not in second.plan
    v = torch.ones(second.size, dtype=torch.float64)
    torch.testing.assert_close(Hessian(second) @ v, Hessian(first) @ v, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("forward mode", "perhaps"),
        ("forward mode", 1),
        ("hessian: nesting", "forward over forward"),
        ("hessian: kept", "layers"),
        ("jacobian: kept", "in a drawer"),
        ("jacobian: batches held", -1),
        ("jacobian: batches held", True),
        ("jacobian: batches held", "all"),
        ("columns at once: TransientJacobian", "many"),
        ("columns at once: Nothing", 2),
        ("columns", "together"),
    ],
)
def test_choices_that_there_are_not_are_refused(name: str, choice: str | int) -> None:
    problem = decided()
    before = dict(problem.plan)
    with pytest.raises(ValueError, match=r"expected.*plan"):
        problem.plan = {**before, name: choice}
    assert problem.plan == before


def test_no_choices_are_a_plan_of_any_net() -> None:
    problem = decided()
    problem.plan = {}
    assert problem.plan.keys() == {"torch", "net"}


def test_a_checkpoint_keeps_the_version(tmp_path) -> None:
    problem = decided()
    top_eigenpairs(GaussNewton(problem), 2, checkpoint=tmp_path / "c", checkpoint_every=0.0)
    manifest, _ = load_state(tmp_path / "c")
    assert manifest["plan"]["torch"] == torch.__version__
