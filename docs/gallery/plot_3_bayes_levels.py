"""
At the best classifier there are C - 1 outliers
===============================================

Theorem 8.1 takes the probabilities to be the same for all samples of a class. The best classifier's
are not; its spectrum is exact all the same, and has one outlier fewer.
"""

import matplotlib.pyplot as plt
import numpy as np

import ccm

snrs = np.linspace(0.5, 5, 19)
fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for snr in snrs:
    model = ccm.CanonicalClassificationModel(dim=50, num_classes=5, snr=snr)
    for level in ccm.bayes_spectrum(model).levels:
        if level.value > 0:
            top = level.multiplicity == 4 and level.label == "outliers"
            ax.plot(
                snr, level.value, "o", color="tab:red" if top else "0.5", ms=2 + level.multiplicity / 8
            )
ax.set(
    xlabel="signal-to-noise ratio t",
    ylabel="eigenvalue at the Bayes classifier",
    yscale="log",
    title="C = 5: the size of a dot is the multiplicity; red: the 4 outliers",
)

# %%
# Some groups lie *below* the bulk, the largest dots. See ``docs/theory.md``, §2, level 3.
