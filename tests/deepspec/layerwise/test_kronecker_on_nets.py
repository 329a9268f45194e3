"""KFAC and CFAC of a net's layers against second moments by definition, sample by sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepspec import Layers
from tests.cases import CASES, Case
from tests.deepspec.layerwise import oracle
from tests.deepspec.layerwise.test_layers import HOW, IDS, observed, problem_of


def second_moment(vectors: Tensor, weights: Tensor) -> Tensor:
    rows = (weights.sqrt()[..., None] * vectors).flatten(0, -2)
    return rows.T @ rows


@pytest.mark.parametrize("shared", HOW)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_kfac_and_cfac_of_nets(case: Case, shared: str) -> None:
    model, problem = problem_of(case)
    modules, n = dict(model.named_modules()), problem.num_samples
    for layer in Layers(problem, shared=shared):
        if layer.normalizes:
            continue
        found = observed(case, modules[layer.name], model)
        vectors, owners, weights = oracle.feature_rows(found, problem.labels, shared)
        errors, error_owners, error_weights = oracle.error_rows(found, problem.labels, shared)
        ones = torch.ones(len(vectors), 1, dtype=torch.float64)
        for bias in (False, True)[: 1 + layer.bias_in_theta]:
            h = torch.cat([vectors, ones], dim=1) if bias else vectors
            kron = torch.kron(second_moment(errors, error_weights), second_moment(h, weights))
            scale = float(kron.abs().max())
            K = layer.kfac(bias)
            assert float((K.to_dense() - kron).abs().max()) < 1e-10 * scale
            values = torch.linalg.eigvalsh(kron).flip(0)
            assert float((K.eigenvalues() - values).abs().max()) < 1e-10 * float(values[0])

            by_class = torch.zeros_like(kron)
            for c in problem.labels.unique().tolist():
                share = float((problem.labels == c).sum()) / n
                mine, theirs = error_owners == c, owners == c
                D = second_moment(errors[mine], error_weights[mine]) / share
                H = second_moment(h[theirs], weights[theirs]) / share
                by_class += share * torch.kron(D, H)
            F = layer.cfac(bias)
            assert float((F.to_dense() - by_class).abs().max()) < 1e-10 * scale
