"""
First by c', then by c
======================

How much of the mean gradients is an effect of the true class c, of the would-be class c', and of both:
a two-way layout, from their Gram matrix alone, before and after training.
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
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
shares = {}
for epochs in (0, 3, 10, 30):
    trained = copy.deepcopy(net)
    if epochs:
        train(trained, *data.train, epochs=epochs)
    array = deepspec.gradients(deepspec.Problem(trained, data.train, dtype=torch.float64))
    shares[epochs] = array.two_way_layout()

bottom = torch.zeros(len(shares))
for name in ("of_label", "of_target", "interaction"):
    values = torch.tensor([float(getattr(layout, name, float("nan"))) for layout in shares.values()])
    ax.bar([str(e) for e in shares], values, bottom=bottom, label=name)
    bottom = bottom + values
ax.set(xlabel="epochs of training", ylabel="share of the mean gradients' variance")
ax.legend()
