"""Eigenpairs and the deflated density of a trained net, against its dense spectrum."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from deepspec import GaussNewton, Hessian, Problem
from deepspec.krylov import JoinedSpectrum, count_outliers, joined_spectrum, top_eigenpairs
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train
from validation._study import Profile, Study, Verdict

CLASSES = 10


def trained(profile: Profile) -> Problem:
    """A small net on the digits, trained as the papers train, in float64."""
    split = digits(per_class=30 if profile == "quick" else 100)
    model = mlp(64, (16,), CLASSES)
    train(model, *split.train, epochs=60, batch_size=64)
    return Problem(model, split.train, num_classes=CLASSES, dtype=torch.float64)


def run(profile: Profile, folder: Path | None) -> Verdict:
    """For G and Hess: pairs beside dense and eigsh, then the joined cumulative distribution."""
    problem = trained(profile)
    numbers: dict[str, float] = {}
    figures = {}
    for name, A in (("G", GaussNewton(problem)), ("Hess", Hessian(problem))):
        dense = torch.linalg.eigvalsh(A.to_dense())
        scale = float(dense.abs().max())
        pairs = top_eigenpairs(A, CLASSES, tol=1e-8)
        foreign = np.sort(eigsh(A.to_scipy(), CLASSES, which="LA", tol=1e-8)[0])[::-1].copy()
        expected = dense.flip(0)[:CLASSES]
        residual = (A @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
        whole = joined_spectrum(A, CLASSES, steps=128, probes=10)
        numbers |= {
            f"{name}_error_to_dense": float((pairs.values - expected).abs().max()) / scale,
            f"{name}_error_to_eigsh": float((pairs.values - torch.from_numpy(foreign)).abs().max())
            / scale,
            f"{name}_residual": float(residual.max()) / scale,
            f"{name}_inside": inside(dense, whole),
            f"{name}_outliers": float(count_outliers(top_eigenpairs(A, 2 * CLASSES)).count),
        }
        figures[name] = (dense, whole)
    if folder is not None:
        _figure(figures, folder / "pairs_on_a_trained_net.png")
    agree = all(
        numbers[f"{name}_{what}"] < 1e-8
        for name in ("G", "Hess")
        for what in ("error_to_dense", "error_to_eigsh", "residual")
    )
    joined = all(numbers[f"{name}_inside"] >= 0.90 for name in ("G", "Hess"))
    return Verdict(
        passed=agree and joined,
        finding=(
            f"top {CLASSES} values of G and Hess differ from dense ones by "
            f"{numbers['G_error_to_dense']:.0e} and {numbers['Hess_error_to_dense']:.0e} of the "
            f"largest; the true distribution is inside the joined one's 95 % envelope at "
            f"{numbers['G_inside']:.1%} and {numbers['Hess_inside']:.1%} of the points; the rule "
            f"counts {numbers['G_outliers']:.0f} and {numbers['Hess_outliers']:.0f} outliers"
        ),
        numbers=numbers,
    )


def inside(eigenvalues: Tensor, whole: JoinedSpectrum) -> float:
    """The share of grid points at which the true distribution is inside the joined envelope."""
    share = (eigenvalues <= whole.grid[:, None]).double().mean(dim=1)
    exact = whole.pair_mass * (whole.pairs.values <= whole.grid[:, None]).double().mean(dim=1)
    lower, upper = (exact + whole.rest_mass * side for side in whole.rest.cumulative_envelope())
    return float(((share >= lower - 1e-9) & (share <= upper + 1e-9)).double().mean())


def _figure(figures: dict[str, tuple[Tensor, JoinedSpectrum]], path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, (name, (dense, whole)) in zip(axes, figures.items(), strict=True):
        low, high = float(dense[0]), float(dense[-1])
        axis.hist(
            dense.numpy(),
            bins=np.linspace(low, high, 201),
            density=True,
            color="0.8",
            label="dense eigenvalues",
        )
        axis.plot(whole.grid, whole.values, color="C0", lw=1, label="density of the rest")
        lower, upper = whole.band()
        axis.fill_between(whole.grid, lower, upper, color="C0", alpha=0.3, lw=0)
        axis.plot(
            whole.pairs.values,
            np.full(CLASSES, whole.pair_mass / CLASSES / ((high - low) / 200)),
            "v",
            color="C3",
            label=f"top {CLASSES}, deflated",
        )
        axis.set(yscale="log", ylim=(1e-3, None), xlabel="λ", ylabel="density", title=name)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


STUDY = Study(
    name="pairs-on-a-trained-net",
    claim="Top eigenpairs and the deflated density join to the true spectrum of a trained net",
    source="Papyan (2020) Appendix C.8, Figure 17",
    prediction="values as dense and as SciPy's eigsh; one distribution of total mass one",
    tolerance=(
        "values and residuals to 1e-8 of the largest eigenvalue; the true distribution inside the "
        "95 % envelope (probes and quadrature) at 90 % of the grid points or more"
    ),
    run=run,
)
