"""The papers' first synthetic check: a Wishart bulk with three spikes, by three estimators."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from deepspec.krylov import SpectralDensity, spectral_density
from deepspec.krylov.baselines import KernelPolynomialDensity, kernel_polynomial_density
from deepspec.operators import MatrixOperator
from validation._study import Profile, Study, Verdict

SIZE, STEPS, PROBES = 2000, 256, 10


def matrix(rng: np.random.Generator) -> Tensor:
    """X + ZZᵀ/2000 with X = diag(5, 4, 3, 0, …) and Z 2000 × 2000 standard normal."""
    normal = rng.standard_normal((SIZE, SIZE))
    product = normal @ normal.T / SIZE
    product[range(3), range(3)] += [5.0, 4.0, 3.0]
    return torch.from_numpy((product + product.T) / 2)


def distance(eigenvalues: Tensor, density: SpectralDensity | KernelPolynomialDensity) -> float:
    """Kolmogorov–Smirnov: the largest difference of the two, on both sides of each step."""
    source = density.quadrature if isinstance(density, SpectralDensity) else density
    share = torch.arange(len(eigenvalues), dtype=torch.float64) / len(eigenvalues)
    hair = 1e-9 * float(eigenvalues.abs().max())
    above = source.cumulative(eigenvalues + hair) - (share + 1 / len(eigenvalues))
    below = source.cumulative(eigenvalues - hair) - share
    return max(float(above.abs().max()), float(below.abs().max()))


def run(profile: Profile, folder: Path | None) -> Verdict:
    """KS distances of FastLanczos over draws of the probes; the others at equal products."""
    A = MatrixOperator(matrix(np.random.default_rng(0)))
    eigenvalues = torch.linalg.eigvalsh(A.matrix)
    draws = 16 if profile == "quick" else 40
    diagonal = _Diagonal(eigenvalues)
    fast = spectral_density(A, STEPS, PROBES)
    distances = [distance(eigenvalues, fast)]
    for seed in range(1, draws):  # in A's eigenbasis: uniform directions are the same there
        again = spectral_density(diagonal, STEPS, PROBES, seed=seed)
        distances.append(distance(eigenvalues, again))
    slow = spectral_density(A, STEPS, PROBES, reorthogonalize="full")
    series = kernel_polynomial_density(A, STEPS - 4, PROBES)
    median = float(np.median(distances))
    # The probes' mass below t is a Brownian bridge of variance 2/(pn) F (1 − F), very nearly.
    predicted = math.sqrt(math.pi / 2) * math.log(2) * math.sqrt(2 / (SIZE * PROBES))
    spikes = [
        float((fast.ritz_values - value).abs().min(dim=1).values.max())
        for value in eigenvalues[-3:]
    ]
    numbers: dict[str, float] = {
        "ks_fast_median": median,
        "ks_fast_worst": max(distances),
        "ks_fast_share_below_0.01": float(np.mean(np.array(distances) < 0.01)),
        "ks_predicted_mean": predicted,
        "ks_slow": distance(eigenvalues, slow),
        "ks_kpm": distance(eigenvalues, series),
        "spike_error": max(spikes),
        "ghosts": float(fast.ghosts.sum()),
    }
    if profile == "full":
        exact = spectral_density(A, SIZE, 1, reorthogonalize="full")
        numbers["ks_slow_of_p_steps"] = distance(eigenvalues, exact)
    if folder is not None:
        _figure(eigenvalues, fast, slow, series, folder / "spiked_wishart_density.png")
    return Verdict(
        passed=median < 0.01 and median < 1.3 * predicted and max(spikes) < 1e-6,
        finding=(
            f"KS distance of FastLanczos (10 probes of 256 steps) {median:.4f} in the median of "
            f"{draws} draws, {predicted:.4f} predicted from the probes' randomness alone; "
            f"SlowLanczos at as many products {numbers['ks_slow']:.4f}, KPM "
            f"{numbers['ks_kpm']:.4f}; the spikes are found to {max(spikes):.0e}"
        ),
        numbers=numbers,
    )


class _Diagonal(MatrixOperator):
    """The same spectrum at the price of a vector."""

    def __init__(self, diagonal: Tensor) -> None:
        object.__setattr__(self, "matrix", diagonal)

    def _product(self, columns: Tensor) -> Tensor:
        return self.matrix[:, None] * columns


def _figure(
    eigenvalues: Tensor,
    fast: SpectralDensity,
    slow: SpectralDensity,
    series: KernelPolynomialDensity,
    path: Path,
) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), sharey=True, layout="constrained")
    cells = np.linspace(float(eigenvalues[0]), float(eigenvalues[-1]), 101)
    titles = ("FastLanczos, 10 × 256", "SlowLanczos, 10 × 256", "KPM with Jackson, 10 × 252 + 32")
    for axis, density, title in zip(axes, (fast, slow, series), titles, strict=True):
        axis.hist(eigenvalues.numpy(), bins=cells, density=True, color="0.8", label="eigenvalues")
        axis.plot(density.grid, density.values, color="C3", lw=1, label="estimate")
        if isinstance(density, SpectralDensity):
            lower, upper = density.band()
            axis.fill_between(density.grid, lower, upper, color="C3", alpha=0.3, lw=0, label="95 %")
        axis.set(title=title, xlabel="λ", yscale="log", ylim=(1e-4, 20))
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("density")
    figure.savefig(path, dpi=120)
    plt.close(figure)


STUDY = Study(
    name="spiked-wishart-density",
    claim="FastLanczos approximates the spectrum of a spiked Wishart matrix well",
    source="Papyan (2020) Figure 15a, Appendix C.3",
    prediction="KS distance to the true spectrum below 0.01 with 10 probes",
    tolerance=(
        "median KS below 0.01 and below 1.3 times what the probes' randomness predicts; each "
        "probe finds each spike to 1e-6"
    ),
    run=run,
)
