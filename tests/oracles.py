"""Dense references, entry by entry from the definitions; slow on purpose."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call


def flat_parameters(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def logits_of(model: nn.Module, theta: Tensor, features: Tensor) -> Tensor:
    tensors, start = {}, 0
    for name, parameter in model.named_parameters():
        stop = start + parameter.numel()
        tensors[name] = theta[start:stop].view(parameter.shape)
        start = stop
    return functional_call(model, tensors, (features,))


def jacobian(model: nn.Module, features: Tensor) -> Tensor:
    """(n, C, p), one sample at a time."""
    theta = flat_parameters(model)
    rows = [
        torch.autograd.functional.jacobian(lambda t, x=x: logits_of(model, t, x[None])[0], theta)
        for x in features
    ]
    return torch.stack(rows)


def hessian(model: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """The Hessian of the mean cross-entropy, sample by sample."""
    theta = flat_parameters(model)
    total = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
    for x, y in zip(features, labels, strict=True):

        def loss(t: Tensor, x: Tensor = x, y: Tensor = y) -> Tensor:
            return nn.functional.cross_entropy(logits_of(model, t, x[None]), y[None])

        total += torch.autograd.functional.hessian(loss, theta) / len(features)
    return total


def gauss_newton(model: nn.Module, features: Tensor) -> Tensor:
    """Σ_i (1/n) J_iᵀ (diag p_i − p_i p_iᵀ) J_i."""
    J = jacobian(model, features)
    p = torch.softmax(logits_of(model, flat_parameters(model), features), dim=1).detach()
    total = torch.zeros(J.shape[2], J.shape[2], dtype=J.dtype)
    for J_i, p_i in zip(J, p, strict=True):
        total += J_i.T @ (torch.diag(p_i) - torch.outer(p_i, p_i)) @ J_i / len(features)
    return total


def parts_of_g(
    model: nn.Module, features: Tensor, labels: Tensor, convention: str
) -> dict[str, Tensor]:
    """The four parts by loops over i, c, c' (Papyan 2020, §6, g_{c,c'} − g_c; 2019, eq. 21–28)."""
    J = jacobian(model, features)
    n, C, p = J.shape
    prob = torch.softmax(logits_of(model, flat_parameters(model), features), dim=1).detach()
    g = torch.zeros(n, C, p, dtype=J.dtype)
    w = torch.zeros(n, C, dtype=J.dtype)
    for i in range(n):
        for c2 in range(C):
            unit = torch.zeros(C, dtype=J.dtype)
            unit[c2] = 1.0
            g[i, c2] = J[i].T @ (prob[i] - unit)
            w[i, c2] = prob[i, c2] / n
            if convention == "icml2019":
                g[i, c2] *= prob[i, c2].sqrt()
                w[i, c2] = 1.0 / n
    parts = {
        name: torch.zeros(p, p, dtype=J.dtype)
        for name in ("between_class", "cross_class", "within_class", "own_class")
    }
    for c in range(C):
        members = [i for i in range(n) if labels[i] == c]
        if not members:
            continue
        w_c = {c2: sum(w[i, c2] for i in members) for c2 in range(C)}
        mean = {c2: sum(w[i, c2] * g[i, c2] for i in members) / w_c[c2] for c2 in range(C)}
        others = [c2 for c2 in range(C) if c2 != c]
        total = sum(w_c[c2] for c2 in others)
        g_c = sum(w_c[c2] * mean[c2] for c2 in others) / total
        parts["between_class"] += total * torch.outer(g_c, g_c)
        parts["own_class"] += w_c[c] * torch.outer(mean[c], mean[c])
        for c2 in others:
            d = mean[c2] - g_c
            parts["cross_class"] += w_c[c2] * torch.outer(d, d)
        for i in members:
            for c2 in range(C):
                d = g[i, c2] - mean[c2]
                parts["within_class"] += w[i, c2] * torch.outer(d, d)
    return parts
