"""The gradient in the top-C subspace of the Hessian: of all data or of a batch, early or late."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepspec import Hessian, Problem, top_eigenpairs
from deepspec.dynamics import Snapshots, trajectory
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import SNAPSHOTS, train
from validation._attributed import EPOCHS, mean
from validation._study import Profile, Study, Verdict

EARLY, BATCH, BATCHES = 3, 32, 24
DECAYS = {"with_decay": 5e-4, "without_decay": 0.0}


def batch_gradients(problem: Problem, seed: int) -> Float[Tensor, "p k"]:
    """Gradients of the loss on random batches, as columns."""
    generator = torch.Generator().manual_seed(seed)
    n = problem.num_samples
    masks = torch.zeros(n, BATCHES, dtype=torch.float64)
    for column in range(BATCHES):
        masks[torch.randperm(n, generator=generator)[:BATCH], column] = 1.0 / BATCH
    return problem.engine.vjp(problem.residuals[:, :, None] * masks[:, None, :])


def shares(model: nn.Module, data: tuple[Tensor, Tensor]) -> dict[str, float]:
    """‖U Uᵀ∇‖²/‖∇‖² for the top C eigenvectors U of Hess: of all data, and mean over batches."""
    problem = Problem(model, data)
    vectors = top_eigenpairs(Hessian(problem), problem.num_classes, tol=1e-2).vectors.double()
    full, batches = problem.gradient().double(), batch_gradients(problem, 0).double()
    inside = (vectors.T @ batches).square().sum(dim=0) / batches.square().sum(dim=0)
    return {
        "full": float((vectors.T @ full).square().sum() / full.square().sum()),
        "batch": float(inside.mean()),
        "chance": problem.num_classes / problem.size,
    }


def run(profile: Profile, folder: Path | None) -> Verdict:
    """All eight cases, over seeds."""
    seeds = range(2 if profile == "quick" else 5)
    found: dict[str, list[float]] = {}
    for name, decay in DECAYS.items():
        for seed in seeds:
            data, model = digits(40 if profile == "quick" else 100, seed=seed), mlp(seed=seed)
            with tempfile.TemporaryDirectory() as place:
                train(
                    model,
                    *data.train,
                    epochs=EPOCHS,
                    weight_decay=decay,
                    seed=seed,
                    folder=place,
                    snapshots=[EARLY, EPOCHS],
                )
                snapshots = Snapshots(Path(place) / SNAPSHOTS, model)
                by_epoch = trajectory(snapshots, lambda net, d=data: shares(net, d.train))
            for epoch, word in ((EARLY, "early"), (EPOCHS, "late")):
                for kind, share in by_epoch[epoch].items():
                    found.setdefault(f"{name}_{word}_{kind}", []).append(share)
    numbers = {key: mean(values) for key, values in found.items()}
    finding = "; ".join(
        f"{key.replace('_', ' ')} {100 * value:.0f} %"
        for key, value in numbers.items()
        if not key.endswith("chance")
    )
    passed = all(value > 0.5 for key, value in numbers.items() if not key.endswith("chance"))
    return Verdict(passed, finding, numbers)


STUDY = Study(
    name="gradient-in-top-subspace",
    claim="Gradients live in the subspace of the top C eigenvectors of the Hessian",
    source="Gur-Ari et al. (2018), cited in Papyan (2019) §1; Song, Ahn, Yun (2025): batches only",
    prediction="most of the gradient's square lies there, of all data and of a batch of 32",
    tolerance=(
        "more than half, mean over seeds, in each case: all data or a batch, after 3 epochs or "
        "60, with weight decay or without (MLP on digits)"
    ),
    run=run,
)
