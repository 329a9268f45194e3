"""Nets whose gradients are chosen: logits A_i θ + b_i with θ = 0, so J_i = A_i is the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import deepspec


class Chosen(nn.Module):
    """Inputs (n, C, p + 1): the Jacobian of each logit, and its value."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[..., :-1] @ self.theta + inputs[..., -1]


def problem(directions: Tensor, labels: Tensor, confidence: float = 4.0) -> deepspec.Problem:
    """The net with g_{i,c'} = h_{i,c'} − Σ_k p_{i,k} h_{i,k}, h the directions (n, C, p)."""
    classes, size = directions.shape[1:]
    logits = confidence * nn.functional.one_hot(labels, classes).double()
    inputs = torch.cat([-directions, logits[:, :, None]], dim=2)
    return deepspec.Problem(Chosen(size), (inputs, labels))


def labels_of(sizes: list[int]) -> Tensor:
    return torch.cat([torch.full((size,), c) for c, size in enumerate(sizes)])


def orthonormal(count: int, size: int, generator: torch.Generator) -> Tensor:
    normal = torch.randn(size, count, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(normal)[0].T


def noise(labels: Tensor, classes: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randn(len(labels), classes, size, generator=generator, dtype=torch.float64)


def class_means(
    sizes: list[int], height: float, seed: int = 0, size: int = 60, level: float = 0.3
) -> tuple[Tensor, Tensor]:
    """h_{i,c'} = height · u_c for c' ≠ c, u_c orthonormal, and noise of the given level."""
    generator = torch.Generator().manual_seed(seed)
    labels = labels_of(sizes)
    classes = len(sizes)
    centres = orthonormal(classes, size, generator)[labels][:, None, :]
    others = 1 - nn.functional.one_hot(labels, classes).double()
    directions = height * others[:, :, None] * centres
    return directions + level * noise(labels, classes, size, generator), labels


def cross_means(sizes: list[int], height: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """h_{i,c'} = height · v_{c,c'} with Σ_{c'≠c} v_{c,c'} = 0: class means that are zero."""
    generator = torch.Generator().manual_seed(seed)
    labels, classes, size = labels_of(sizes), len(sizes), 80
    centres = orthonormal(classes * classes, size, generator).reshape(classes, classes, size)
    others = 1 - torch.eye(classes, dtype=torch.float64)
    centres = centres * others[:, :, None]
    centres = (centres - centres.sum(dim=1, keepdim=True) / (classes - 1)) * others[:, :, None]
    return height * centres[labels] + 0.3 * noise(labels, classes, size, generator), labels
