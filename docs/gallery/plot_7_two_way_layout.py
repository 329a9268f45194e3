"""
First by c', then by c
======================

How much of the mean gradients is an effect of the true class c, of the would-be class c', and of
both: a two-way layout, from their Gram matrix alone, before and after training.
"""

import copy

import matplotlib.pyplot as plt
import torch

import deepspec
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train

torch.manual_seed(0)
data, net = digits(20), mlp(64, (64, 64))
shares = {}
for epochs in (0, 3, 10, 30):
    trained = copy.deepcopy(net)
    if epochs:
        train(trained, *data.train, epochs=epochs)
    array = deepspec.gradients(deepspec.Problem(trained, data.train, dtype=torch.float64))
    shares[epochs] = array.two_way_layout()

fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
names = {
    "by_cross_class": "effect of the would-be class c'",
    "shared": "either",
    "by_class": "effect of the true class c",
    "interaction": "both together",
}
bottom = [0.0] * len(shares)
for name, label in names.items():
    heights = [max(0.0, getattr(layout, name)) for layout in shares.values()]
    ax.bar([str(epochs) for epochs in shares], heights, bottom=bottom, label=label)
    bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
ax.set(xlabel="epochs of training", ylabel="share of the variance of the means g_{c,c'}")
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
