"""
Spectra while you train
=======================

:class:`deepspec.Recorder` in a training loop of one's own: the loss, and the largest eigenvalues of
G and of what class means leave of it.
"""

import matplotlib.pyplot as plt
import torch

import deepspec
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp

torch.manual_seed(0)
data, net = digits(20), mlp(64, (64,))
X, y = data.train
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def tops(problem: deepspec.Problem) -> dict[str, float]:
    """The largest eigenvalue of G, with and without the class means."""
    array = deepspec.gradients(problem)
    return {
        "G": float(array.eigenvalues()[0]),
        "G without class means": float(array.knock_out("between_class")[0]),
    }


recorder = deepspec.Recorder(net, (X, y), what=["loss", tops], every=10, budget=None)
for step in range(121):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(X), y).backward()
    optimizer.step()
    recorder.record(step)

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
steps = [row["step"] for row in recorder.rows]
for name in ("loss", "G", "G without class means"):
    ax.plot(steps, [row[name] for row in recorder.rows], "o-", ms=3, label=name)
ax.set(xlabel="step", ylabel="loss, or largest eigenvalue", yscale="log")
ax.legend()
