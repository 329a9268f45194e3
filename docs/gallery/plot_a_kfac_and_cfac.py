"""
KFAC and CFAC against the exact curvature of a layer
====================================================

KFAC averages features and errors over all classes before it multiplies them; CFAC within each
class. Where classes differ, that is the difference between missing the top eigenvalues and finding
them.
"""

import matplotlib.pyplot as plt
import torch

import deepspec
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train

data, net = digits(20), mlp(64, (64, 64, 64))
train(net, *data.train, epochs=40)
layers = deepspec.Layers(deepspec.Problem(net, data.train, dtype=torch.float64))
linear = [layer for layer in layers if layer.kind == "Linear"]

fig, axes = plt.subplots(
    1, len(linear), figsize=(3 * len(linear), 3.6), sharey=True, layout="constrained"
)
for ax, layer in zip(axes, linear, strict=True):
    ax.plot(range(1, 101), layer.gradients.eigenvalues()[:100], "k", label="$G^l$, exact")
    ax.plot(range(1, 101), layer.kfac().eigenvalues(100), "--", label="KFAC")
    ax.plot(range(1, 101), layer.cfac().eigenvalues(100), "-", label="CFAC")
    ax.set(xscale="log", yscale="log", xlabel="rank", title=f"layer {layer.name}")
axes[0].set_ylabel("eigenvalue")
axes[0].legend()
