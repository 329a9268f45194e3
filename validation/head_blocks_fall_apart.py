"""The head's Hessian by classes: its off-diagonal blocks fade as the classes become many."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepspec import Hessian, Problem
from deepspec.zoo.training import train
from validation._study import Profile, Study, Verdict
from validation.outliers_of_many_classes import planted

WIDTH = 12


def ratio(blocks: Float[Tensor, "a b a b"]) -> float:
    """The mean norm of an off-diagonal block over that of a diagonal one."""
    norms = blocks.square().sum(dim=(1, 3)).sqrt()
    count = len(norms)
    diagonal = float(norms.diagonal().mean())
    return float(norms.sum() - norms.diagonal().sum()) / (count * (count - 1)) / diagonal


def ratios(model: nn.Module, inputs: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Blocks of classes, and as a null those of the same matrix by input features."""
    problem = Problem(model, (inputs, labels), num_classes=classes, parameters="2.weight")
    dense = Hessian(problem).to_dense().double().view(classes, WIDTH, classes, WIDTH)
    return ratio(dense), ratio(dense.permute(1, 0, 3, 2))


def slope(sizes: list[int], values: list[float]) -> float:
    """Of the logarithms."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, values))
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))


def run(profile: Profile, folder: Path | None) -> Verdict:
    """Untrained and trained nets for growing C."""
    sizes = [4, 8, 16, 32] if profile == "quick" else [4, 8, 16, 32, 64, 128]
    found: dict[str, list[float]] = {"untrained": [], "trained": [], "by features": []}
    for classes in sizes:
        inputs, labels = planted(classes, 8)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(20, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))
        by_class, by_feature = ratios(model, inputs, labels, classes)
        found["untrained"].append(by_class)
        found["by features"].append(by_feature)
        train(model, inputs, labels, learning_rate=0.05, epochs=30)
        found["trained"].append(ratios(model, inputs, labels, classes)[0])
    slopes = {name: slope(sizes, values) for name, values in found.items()}
    passed = abs(slopes["untrained"] + 1) < 0.25 and slopes["by features"] > -0.25
    numbers = {f"slope_{name.replace(' ', '_')}": value for name, value in slopes.items()}
    numbers |= {f"untrained_{c}": v for c, v in zip(sizes, found["untrained"], strict=True)}
    return Verdict(
        passed,
        f"C = {sizes[0]}..{sizes[-1]}: off-diagonal over diagonal blocks falls from "
        f"{found['untrained'][0]:.2f} to {found['untrained'][-1]:.3f}, as C to the power "
        f"{slopes['untrained']:.2f} (trained {slopes['trained']:.2f}); blocks by features: "
        f"{slopes['by features']:.2f}",
        numbers,
    )


STUDY = Study(
    name="head-blocks-fall-apart",
    claim="The head's Hessian becomes block-diagonal by classes as C grows",
    source="Dong et al. (2025), arXiv 2505.02809",
    prediction="p_c p_c' against p_c (1 − p_c): off-diagonal over diagonal blocks ~ 1/C untrained",
    tolerance="power within 0.25 of −1; of blocks by features, the null, above −0.25",
    run=run,
)
