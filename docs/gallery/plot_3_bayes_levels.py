"""
At the best classifier there are C - 1 outliers
===============================================

Theorem 8.1 takes the probabilities to be the same for all samples of a class. The best classifier's
are not; its spectrum is exact all the same, and has one outlier fewer.
"""

import matplotlib.pyplot as plt
import numpy as np

import ccm

snrs = np.linspace(0.5, 5, 46)
C = 5
names = {  # which group it is, by how often it occurs, from the largest eigenvalue down
    (4, "first"): ("C − 1 outliers", "tab:red", "-"),
    (6, "first"): ("(C − 1)(C − 2)/2", "tab:blue", "-"),
    (4, "second"): ("C − 1", "tab:green", "-"),
    (5, "first"): ("C(C − 3)/2", "tab:orange", "-"),
    (1, "first"): ("1", "tab:purple", "-"),
    (180, "first"): ("the bulk, (D − C)(C − 1)", "k", "--"),
}
curves: dict[tuple[int, str], list[float]] = {key: [] for key in names}
for snr in snrs:
    seen: set[int] = set()
    model = ccm.CanonicalClassificationModel(dim=50, num_classes=C, snr=snr)
    for level in ccm.bayes_spectrum(model).levels:
        key = (level.multiplicity, "second" if level.multiplicity in seen else "first")
        seen.add(level.multiplicity)
        if key in curves:
            curves[key].append(level.value)

fig, ax = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
for key, (label, color, style) in names.items():
    ax.plot(snrs, curves[key], style, color=color, label=label)
ax.set(xlabel="signal-to-noise ratio t", ylabel="eigenvalue at the Bayes classifier", yscale="log")
ax.legend(title="how many", fontsize=9)

# %%
# Some groups lie *below* the bulk. See the theory page, §2, level 3.
