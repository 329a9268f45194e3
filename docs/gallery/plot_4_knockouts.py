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
train(net, *data.train, epochs=30)
array = deepspec.gradients(deepspec.Problem(net, data.train, dtype=torch.float64))

shown = {
    "G": array.eigenvalues(),
    "without class means": array.knock_out("between_class"),
    "without cross-class means": array.knock_out("cross_class"),
    "without scatter within": array.knock_out("within_class"),
}
fig, axes = plt.subplots(len(shown), sharex=True, sharey=True, figsize=(7, 6), layout="constrained")
for ax, (name, values) in zip(axes, shown.items(), strict=True):
    logs = values[values > 1e-9 * array.eigenvalues()[0]].log10()
    ax.hist(logs.numpy(), bins=80, range=(-9, 0.5), color="tab:blue")
    ax.set_yscale("log")
    ax.set_title(f"{name}: largest eigenvalue {float(values[0]):.2g}", loc="left", fontsize=10)
axes[-1].set_xlabel("log10 of the eigenvalue")
fig.supylabel("how many")
