"""
A bulk of finite width: the law beside one draw
===============================================

With N samples a class, the bulk of the Fisher information is not one eigenvalue but a
generalised Marchenko-Pastur law. One draw of data follows it closely.
"""

import matplotlib.pyplot as plt
import numpy as np

import ccm

model = ccm.CanonicalClassificationModel(dim=200, num_classes=4, snr=3.0)
alpha, per_class = 0.3, 100
law = ccm.finite_sample_law(model, alpha, per_class)

X, y = model.sample(per_class, seed=0)
G = ccm.empirical_fim(X, ccm.symmetric_probabilities(4, alpha)[y])
eigenvalues = np.linalg.eigvalsh(G)
eigenvalues = eigenvalues[eigenvalues > 1e-8]

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
ax.hist(eigenvalues, bins=90, density=True, color="0.8", label="one draw")
x = np.linspace(law.edges[0, 0], law.edges[-1, 1], 400)
ax.plot(x, law.density(x), color="k", label="the law at N = 100 a class")
for label, color in (("outliers", "tab:red"), ("mini-bulk", "tab:blue")):
    place = law.location(label)
    if place is not None:
        ax.axvline(place, color=color, label=f"{label}, finite sample")
for level in ccm.symmetric_spectrum(model, alpha).levels:
    if level.label != "null":
        ax.axvline(level.value, color="0.4", linestyle="--", linewidth=1)
ax.set(xlabel="eigenvalue", ylabel="density", xlim=(0, 1.1))
ax.legend()

# %%
# Dashed: the same three levels with infinitely many samples (Papyan 2020, Theorem 8.1).
