"""Nets followed through training, with Kronecker approximations beside exact curvature."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from deepspec import Layers, Problem, curvature_agreement, gradients
from deepspec.dynamics import Snapshots, trajectory
from deepspec.layerwise import Agreement, CurvatureAgreement, layer_agreement
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import convnet, mlp
from deepspec.zoo.training import SNAPSHOTS, train
from validation._study import Profile

EPOCHS = 60
DRAWS = 3


@dataclass(frozen=True)
class Moment:
    """One net after some epochs.

    ``random_blocks`` are the relative errors of block-diagonals of G over random partitions of θ
    into blocks as large as the layers. ``shuffled`` has each layer's CFAC with shuffled labels.
    """

    error_rate: float
    agreement: CurvatureAgreement
    random_blocks: list[float]
    shuffled: list[Agreement]


@cache
def moments(profile: Profile) -> dict[str, list[dict[int, Moment]]]:
    """For each kind of net and seed, what was measured after some epochs of one training.

    Quick: an MLP of three hidden layers of 24 on 5 digits of each class, two seeds. Full: MLPs of
    four and eight hidden layers of 64, with and without batch normalisation, and a small
    convolutional net, on 20 of each, five seeds. In float64.
    """
    seeds = range(2 if profile == "quick" else 5)
    kinds = (
        {"mlp3": partial(mlp, 64, (24,) * 3)}
        if profile == "quick"
        else {
            "mlp4": partial(mlp, 64, (64,) * 4),
            "mlp8": partial(mlp, 64, (64,) * 8),
            "plain4": partial(mlp, 64, (64,) * 4, normalise=False),
            "convnet": convnet,
        }
    )
    return {
        kind: [_followed(make(seed=seed), profile, seed, image=kind == "convnet") for seed in seeds]
        for kind, make in kinds.items()
    }


def _followed(model: nn.Module, profile: Profile, seed: int, *, image: bool) -> dict[int, Moment]:
    split = digits(5 if profile == "quick" else 20, seed=seed, image=image)
    kept = (0, 10, EPOCHS) if profile == "quick" else (0, 1, 3, 10, 30, EPOCHS)
    with tempfile.TemporaryDirectory() as place:
        train(
            model,
            *split.train,
            epochs=EPOCHS,
            batch_size=32,
            seed=seed,
            folder=place,
            snapshots=kept,
        )
        snapshots = Snapshots(Path(place) / SNAPSHOTS, model)
        return trajectory(snapshots, partial(_measured, data=split.train, seed=seed))


def _measured(model: nn.Module, data: tuple[Tensor, Tensor], seed: int) -> Moment:
    problem = Problem(model, data, dtype=torch.float64)
    layers = Layers(problem, shared="expand")
    generator = torch.Generator().manual_seed(seed)
    found = curvature_agreement(layers)
    named = {layer.name for layer in found.layers}
    shuffled = [
        layer_agreement(
            layer, layer.cfac(layer.bias_in_theta, labels=_shuffled(problem, generator))
        )
        for layer in layers
        if layer.name in named
    ]
    sizes = [layer.own.size for layer in layers]
    blocks = [random_block_error(problem, sizes, generator) for _ in range(DRAWS)]
    return Moment(problem.error_rate, found, blocks, shuffled)


def _shuffled(problem: Problem, generator: torch.Generator) -> Tensor:
    return problem.labels[torch.randperm(problem.num_samples, generator=generator)]


def random_block_error(problem: Problem, sizes: list[int], generator: torch.Generator) -> float:
    """‖G − blkdiag(G)‖/‖G‖ over blocks of parameters that are drawn without regard to layers.

    From Grams: ‖G‖ = ‖D Dᵀ‖ and the block on parameters b has norm ‖D_b D_bᵀ‖.
    """
    rows = gradients(problem).rows
    eye = torch.eye(rows.size, dtype=rows.dtype)
    D = torch.cat([rows.rmatmul(few) for few in eye.split(256, 1)], dim=1).T
    drawn = torch.randperm(problem.size, generator=generator)[: sum(sizes)].split(sizes)
    kept = sum(float((D[:, block] @ D[:, block].T).square().sum()) for block in drawn)
    return (1 - kept / float((D @ D.T).square().sum())) ** 0.5
