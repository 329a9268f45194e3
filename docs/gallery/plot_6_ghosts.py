"""
Ghosts: why counting needs orthogonality
========================================

Lanczos in floating point forgets what it has found, and finds it again. For a density these copies
are harmless: their weights add up. For counting outliers they are wrong.
"""

import matplotlib.pyplot as plt
import torch

import deepspec

p = 400
values = torch.linspace(0, 1, p, dtype=torch.float64)
values[-3:] = torch.tensor([3.0, 4.0, 5.0])
A = deepspec.MatrixOperator(torch.diag(values))
start = torch.randn(p, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

fig, axes = plt.subplots(2, sharex=True, sharey=True, figsize=(7, 5), layout="constrained")
for ax, way in zip(axes, ("none", "full"), strict=True):
    for steps in range(5, 121, 5):
        T = deepspec.lanczos(A, steps, start, reorthogonalize=way)
        ritz = torch.linalg.eigvalsh(
            torch.diag(T.diagonal) + torch.diag(T.off_diagonal, 1) + torch.diag(T.off_diagonal, -1)
        )
        ax.plot([steps] * len(ritz), ritz, "o", ms=2.5, color="tab:blue", alpha=0.6)
    copies = [int(((ritz - value).abs() < 1e-6).sum()) for value in (3, 4, 5)]
    ax.set_title(
        f"reorthogonalize={way!r}: copies of 3, 4, 5 after 120 steps: {copies}",
        loc="left",
        fontsize=10,
    )
    ax.set_ylabel("Ritz values")
axes[-1].set_xlabel("Lanczos steps")
