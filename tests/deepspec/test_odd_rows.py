"""Rows that count for nothing, or not as one expects, beside PyTorch's own losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import deepspec
from deepspec import Problem


def small() -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        return net, torch.randn(7, 3, dtype=torch.float64)


def test_rows_of_weight_zero_stay_in_pytorchs_mean_of_soft_labels() -> None:
    # Class 0 weighs nothing, and the first two rows are of it alone: PyTorch divides by all seven.
    net, inputs = small()
    soft = torch.softmax(inputs, dim=1)
    soft[:2] = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64))
    problem = Problem(net, (inputs, soft), loss=loss, batch_size=3)
    expected = loss(net(inputs), soft)
    assert problem.loss == pytest.approx(float(expected.detach()), rel=1e-12)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(expected, net.parameters())])
    torch.testing.assert_close(problem.gradient(), gradient, rtol=1e-10, atol=1e-13)
    G = deepspec.GaussNewton(problem).to_dense()
    by_rows = deepspec.gradients(problem).gram.trace()
    assert float(G.trace()) == pytest.approx(by_rows, rel=1e-10)


def test_weights_of_other_data_are_refused() -> None:
    net, inputs = small()
    with pytest.raises(ValueError, match="row_weights for the 7 samples there are, got 9"):
        Problem(net, (inputs, torch.arange(7) % 3), row_weights=torch.ones(9))
