"""
Phase transitions: when can outliers be seen at all?
====================================================

At N samples a class a group of eigenvalues leaves the bulk only above a critical signal-to-noise
ratio. Below it, the group is there in the population and hidden in the sample.
"""

import matplotlib.pyplot as plt
import numpy as np

import ccm

alpha, per_class = 0.1, 200
snrs = np.linspace(0.2, 5, 120)
laws = [
    ccm.finite_sample_law(
        ccm.CanonicalClassificationModel(dim=200, num_classes=6, snr=snr), alpha, per_class
    )
    for snr in snrs
]

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
edges = np.array([law.edges[[0, -1], [0, 1]] for law in laws])
ax.fill_between(snrs, edges[:, 0], edges[:, 1], color="0.85", label="bulk")
for label, color in (("outliers", "tab:red"), ("mini-bulk", "tab:blue")):
    places = [law.location(label) for law in laws]
    ax.plot(snrs, [np.nan if p is None else p for p in places], color=color, label=label)
    critical = laws[0].critical_snr(label)
    ax.axvline(critical, color=color, linestyle=":", linewidth=1)
    ax.annotate(f"{critical:.2f}", (critical, 0.02), color=color, rotation=90, ha="right")
ax.set(
    xlabel="signal-to-noise ratio t", ylabel="eigenvalue of the Fisher information", yscale="log"
)
ax.legend()

# %%
# Dotted: the critical ratios. More samples a class move both to the left.
