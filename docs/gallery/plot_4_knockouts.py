"""
Knocking class means out
========================

Without the means of the classes, the outliers of G are gone; without scatter within the classes,
the bulk is.
"""

import matplotlib.pyplot as plt
import torch

import deepspec
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train

torch.manual_seed(0)
data, net = digits(20), mlp(64, (64, 64))
train(net, *data.train, epochs=60)
array = deepspec.gradients(deepspec.Problem(net, data.train, dtype=torch.float64))

shown = {
    "G": array.eigenvalues(),
    "without class means": array.knock_out("between_class"),
    "without cross-class means": array.knock_out("cross_class"),
    "without scatter within classes": array.knock_out("within_class"),
}
fig, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
for (name, values), marker in zip(shown.items(), "o.x+", strict=True):
    top = values[:150]
    ax.plot(range(1, len(top) + 1), top, marker, ms=5, label=name)
ax.set(xlabel="rank", ylabel="eigenvalue", xscale="log", yscale="log", ylim=(1e-3, None))
ax.legend()

# %%
# Orange falls below blue at the first ten ranks, one a class, and joins it after them. Red follows
# blue there and dies out at the C² means that are all that is left.
