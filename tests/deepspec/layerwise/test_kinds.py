"""Kinds of layers that trip others up: attention's projections, transposed weights, series."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import deepspec
from deepspec import Layers, Problem
from tests import oracles
from tests.deepspec.class_structure.test_array import alike, descending
from tests.layered_cases import built, example, problem_of

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same. with even")


class Attending(nn.Module):
    """nn.MultiheadAttention on sequences of vectors."""

    def __init__(self, batch_first: bool, crossed: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first, bias=bias)
        self.head, self.crossed, self.batch_first = nn.Linear(6, 3), crossed, batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        out, _ = self.attention(x, torch.tanh(x) if self.crossed else x, x, need_weights=False)
        return self.head(torch.tanh(out).mean(dim=1 if self.batch_first else 0))


class ByHand(nn.Module):
    """The same with modules for the projections."""

    def __init__(self, other: Attending) -> None:
        super().__init__()
        attention = other.attention
        self.taken, self.out, self.head = nn.Linear(6, 18), nn.Linear(6, 6), nn.Linear(6, 3)
        self.taken.weight, self.taken.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out.weight, self.out.bias = attention.out_proj.weight, attention.out_proj.bias
        self.head.weight, self.head.bias = other.head.weight, other.head.bias

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.taken(x).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        seen = torch.softmax(q @ k.transpose(2, 3) / 3**0.5, dim=3) @ v
        out = self.out(seen.transpose(1, 2).flatten(2))
        return self.head(torch.tanh(out).mean(dim=1))


def attending(**options: bool) -> tuple[Attending, tuple[Tensor, Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        X, y = torch.randn(7, 4, 6).double(), torch.arange(7) % 3
        return built(Attending(**options), X), (X, y)


@pytest.mark.parametrize("shared", ["expand", "reduce"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_projections_of_attention_are_those_by_hand(batch_first: bool, shared: str) -> None:
    model, data = attending(batch_first=batch_first)
    problem = Problem(model, data, batch_size=3)
    reference = Layers(Problem(ByHand(model).eval(), data), shared=shared)
    layers = Layers(problem, shared=shared)
    assert layers.names == ("attention.in_proj", "attention.out_proj", "head")
    assert layers[1].parameter_names == ("attention.out_proj.weight", "attention.out_proj.bias")
    total = 0.0
    for layer, expected in zip(layers, reference, strict=True):
        assert torch.equal(layer.weight, expected.weight)
        for kind in ("features", "errors", "gradients"):
            found, other = getattr(layer, kind), getattr(expected, kind)
            scale = float(other.eigenvalues()[0])
            difference = found.second_moment.to_dense() - other.second_moment.to_dense()
            assert float(difference.abs().max()) < 1e-12 * scale
        total += layer.gradients.gram.trace()
    assert total == pytest.approx(deepspec.gradients(problem).gram.trace(), rel=1e-12)


def test_attention_without_biases_and_with_one_in_theta() -> None:
    model, data = attending(batch_first=True, bias=False)
    assert Layers(Problem(model, data))[0].parameter_names == ("attention.in_proj_weight",)
    model, data = attending(batch_first=True)
    problem = Problem(model, data, select=lambda name, _: name == "attention.in_proj_bias")
    (layer,) = Layers(problem)
    assert not layer.weight_in_theta
    assert torch.equal(layer.weight, model.attention.in_proj_weight.detach())
    J = oracles.jacobian(model, data[0])[:, :, 6 * 18 : 6 * 18 + 18]
    p = problem.probabilities
    G = sum(j.T @ (torch.diag(q) - torch.outer(q, q)) @ j / 7 for j, q in zip(J, p, strict=True))
    assert alike(layer.gradients.eigenvalues(), descending(G).clamp_min(0), 1.0)


def test_attention_between_two_inputs_is_left_out_by_name() -> None:
    model, data = attending(batch_first=True, crossed=True)
    layers = Layers(Problem(model, data))
    assert layers.names == ("attention.out_proj", "head")
    with pytest.raises(ValueError, match=r"attention\.in_proj: it projects queries and keys of di"):
        layers["attention.in_proj"]


def test_linear_is_pytorch_s_own_again() -> None:
    model, data = attending(batch_first=True)
    plain = torch.nn.functional.linear
    problem = Problem(model, data)
    Layers(problem)
    assert torch.nn.functional.linear is plain
    model.attention.out_proj.register_forward_pre_hook(lambda *_: 1 / 0)  # never fires
    Layers(problem)

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model.head.register_forward_pre_hook(fails)
    with pytest.raises(KeyboardInterrupt):
        Layers(problem)
    handle.remove()
    model.attention.register_forward_pre_hook(fails)
    with pytest.raises(KeyboardInterrupt):
        Layers(problem)
    assert torch.nn.functional.linear is plain
    assert len(model.attention._forward_pre_hooks) == 1
    assert not model.attention._forward_hooks


@pytest.mark.parametrize("name", ["transposed", "signal", "grouped", "series"])
def test_layers_are_blocks_of_g(name: str) -> None:
    model, X, _, _ = example(name)
    problem = problem_of(name, select=lambda n, _: name != "grouped" or not n.startswith("5."))
    G = oracles.gauss_newton(model, X)
    every = [n for n, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    J = oracles.jacobian(model, X)
    p = problem.probabilities
    g = torch.einsum("icp,ick->ikp", J, p[:, :, None] - torch.eye(p.shape[1]).double())
    for layer in Layers(problem):
        place = torch.cat(
            [
                torch.full((size,), n in layer.parameter_names)
                for n, size in zip(every, sizes, strict=True)
            ]
        )
        block = G[place][:, place]
        scale = float(descending(block)[0])
        assert float((layer.gradients.second_moment.to_dense() - block).abs().max()) < 1e-10 * scale
        if layer.normalizes or layer.groups > 1:
            continue
        for batch in layer.batches():
            found = torch.einsum("bcto,bti->bcoi", batch.errors, batch.inputs)
            if layer.kind == "Conv1D":
                found = found.transpose(2, 3)
            expected = g[batch.rows][:, :, place][:, :, : layer.matrix.numel()]
            assert float((found.flatten(2) - expected).abs().max()) < 1e-12


def test_a_transposed_weight_is_turned() -> None:
    model, _, _, _ = example("transposed")
    layer = Layers(problem_of("transposed"))[0]
    assert layer.kind == "Conv1D"
    assert (layer.width_in, layer.width_out) == (4, 5)
    assert torch.equal(layer.weight, model[0].weight.detach().T)
