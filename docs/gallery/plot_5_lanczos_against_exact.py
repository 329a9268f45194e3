"""
Estimated and exact: a density with its band
============================================

A density from 2 x 40 products with G, and every eigenvalue of the same matrix, through the tangent
kernel.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import deepspec
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train

torch.manual_seed(0)
data, net = digits(20), mlp(64, (32, 32))
train(net, *data.train, epochs=20)
G = deepspec.GaussNewton(deepspec.Problem(net, data.train, dtype=torch.float64))
exact = deepspec.exact_spectrum(G)
estimate = deepspec.spectral_density(G, steps=40, probes=2, seed=0)

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
grid = estimate.grid.numpy()
low, high = estimate.band()
ax.plot(grid, estimate.values, color="tab:blue", label="Lanczos, 80 products with G")
ax.fill_between(grid, low, high, color="tab:blue", alpha=0.3, label="95 % band")
eigenvalues = torch.cat([exact.eigenvalues, torch.zeros(exact.zeros)]).numpy()
heights, bins = np.histogram(eigenvalues, bins=200, range=(grid[0], grid[-1]), density=True)
ax.stairs(
    heights, bins, color="0.6", fill=True, alpha=0.5, label=f"all {len(eigenvalues):,} eigenvalues"
)
ax.set(xlabel="eigenvalue of G", ylabel="density", yscale="log", ylim=(1e-4, None))
ax.legend()
