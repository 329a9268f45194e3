"""
Anyone's embeddings
===================

Vectors with classes, from any model, are an array with class structure: the same parts and the same
knockouts.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

import deepspec

pixels, labels = load_digits(return_X_y=True)
vectors = torch.as_tensor(pixels / 16, dtype=torch.float64)
array = deepspec.ClassArray(vectors, torch.as_tensor(labels))

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
ax.semilogy(array.eigenvalues()[:40], "o", label="the second moment of the pixels")
ax.semilogy(array.knock_out("between_class")[:40], ".", label="without the class means")
ax.semilogy(array.knock_out("global_mean")[:40], "x", label="without the global mean")
ax.set(xlabel="rank", ylabel="eigenvalue")
ax.legend()

# %%
# The isolated eigenvalue is the global mean; class means carry about nine more.
