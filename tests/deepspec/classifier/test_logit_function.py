"""Parts of a batch are the same function, and inputs keep their containers."""

import pytest
import torch
from torch import Tensor, nn

from deepspec.classifier.generators import reseeded, undisturbed
from deepspec.classifier.logit_function import LogitFunction, ModelError
from deepspec.classifier.parameters import ParameterSpace, parameter_space
from deepspec.classifier.trees import by_sample, cut, described, join, move, pick
from tests.deepspec.classifier.nets import data, linear

X, y = data()


def function(model: nn.Module, inputs: object) -> LogitFunction:
    space = parameter_space(model)
    return LogitFunction(model, space, dict(model.named_parameters()), {}, inputs, 9, first=20)


@pytest.mark.parametrize("inputs", [X, (X,), {"input": X}], ids=["tensor", "tuple", "mapping"])
def test_parts_of_a_batch_are_rows_of_its_logits(inputs: object) -> None:
    f = function(linear(), inputs)
    parameters, whole = f.parameters, linear()(X)
    rows = torch.tensor([7, 1])
    assert torch.equal(f(parameters), whole)
    assert torch.allclose(f.head(4)(parameters), whole[:4], atol=1e-15)
    assert torch.allclose(f.pick(rows)(parameters), whole[rows], atol=1e-15)
    both = f.head(2).joined(f.pick(rows))
    assert both.samples == 4
    assert torch.allclose(both(parameters), whole[[0, 1, 7, 1]], atol=1e-15)
    assert f.head(20).samples == 9


def test_an_error_says_which_samples() -> None:
    class Wrong(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return self.no_such_layer(x)

    f = function(Wrong(4, 3), X)
    with pytest.raises(ModelError, match=r"samples 20\.\.28.*AttributeError.*no_such_layer"):
        f(f.parameters)


def test_only_tensors_by_sample_are_cut() -> None:
    inputs = {"x": X, "weights": torch.ones(3), "pair": (X, 2.0), "flag": None}
    head = cut(inputs, 9, 0, 2)
    assert described(head) == (
        "{x: (2, 4) float64, weights: (3) float32, pair: ((2, 4) float64, float), flag: NoneType}"
    ).replace("(3) ", "(3,) ")
    assert torch.equal(pick(inputs, 9, torch.tensor([3]))["pair"][0], X[3:4])
    assert len(join(head, 2, head)["x"]) == 4
    assert move(inputs, torch.device("cpu"), torch.float32)["pair"][0].dtype == torch.float32
    assert not by_sample(torch.ones(()), 1)


def test_training_flags_come_back() -> None:
    model = nn.Sequential(linear(), nn.Dropout())
    model[1].eval()
    f = function(model, X)
    f(f.parameters)
    assert [m.training for m in model.modules()] == [True, True, False]


def test_a_vector_goes_to_named_tensors_and_back() -> None:
    space = ParameterSpace(("a", "b"), ((2, 3), ()))
    vector = torch.arange(7.0)
    assert torch.equal(space.flatten(space.unflatten(vector)), vector)
    columns = space.unflatten_columns(torch.stack([vector, -vector], dim=1))
    assert torch.equal(columns["a"][1], -vector[:6].view(2, 3))
    assert columns["b"].tolist() == [6.0, -6.0]
    into = torch.zeros(7)
    space.accumulate(into, [torch.ones(2, 3), None], factor=2.0)
    assert into.tolist() == [2.0] * 6 + [0.0]


def test_generators_are_put_back_and_replaced() -> None:
    before = torch.get_rng_state()
    with reseeded(1):
        first = torch.rand(1)
    with undisturbed(), reseeded(2):
        assert not torch.equal(torch.rand(1), first)
    assert torch.equal(torch.get_rng_state(), before)
