"""The ratio of outliers to bulk predicts misclassification, across sweeps of the SNR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

import ccm
from ccm.plots.levels import save_figure
from ccm.plots.sweep import plot_eigenvalues, plot_misclassification
from validation._study import Profile, Study, Verdict

RATIOS = ("outliers_over_bulk", "outliers_over_mini_bulk", "mini_bulk_over_bulk")


def run(profile: Profile, folder: Path | None) -> Verdict:
    """Rank correlation of each ratio with test error, at few and at many samples."""
    D, C, points, repeats = (40, 5, 8, 3) if profile == "quick" else (100, 10, 12, 5)
    sizes = (200, 1000) if profile == "quick" else (300, 1000, 3000)
    numbers: dict[str, float] = {}
    pooled: list[np.ndarray] = []
    for N in sizes:
        table = ccm.snr_sweep(D, C, np.linspace(0.5, 4, points), N, replicates=repeats, seed=7)
        error = table.column("test_error")
        for ratio in RATIOS:
            measured = table.column(f"fitted_{ratio}")
            numbers[f"{ratio}_N{N}"] = float(spearmanr(measured, error).statistic)
        pooled.append(np.array([table.column("fitted_outliers_over_bulk"), error]))
        if folder is not None:
            save_figure(plot_misclassification(table), folder / f"misclassification-{N}.png")
            save_figure(plot_eigenvalues(table), folder / f"eigenvalues-{N}.png")
    worst = {r: max(numbers[f"{r}_N{N}"] for N in sizes) for r in RATIOS}
    together = float(spearmanr(*np.concatenate(pooled, axis=1)).statistic)
    # The error at one value of the ratio, from the sweep of few samples and from that of many.
    (few, few_error), (many, many_error) = pooled[0], pooled[-1]
    at = float(np.sqrt(max(few.min(), many.min()) * min(few.max(), many.max())))
    factor = float(np.interp(at, few, few_error) / np.interp(at, many, many_error))
    numbers |= {"pooled_over_N": together, "same_ratio_error_factor": factor}
    return Verdict(
        passed=worst["outliers_over_bulk"] < -0.95,
        finding=(
            f"rank correlation with test error within a sweep, at worst: outliers/bulk "
            f"{worst['outliers_over_bulk']:.3f}, outliers/mini-bulk "
            f"{worst['outliers_over_mini_bulk']:.3f}, mini-bulk/bulk "
            f"{worst['mini_bulk_over_bulk']:.3f}. But not one curve for all N: at a ratio of "
            f"{at:.1f}, N = {sizes[0]} errs {factor:.1f} times as often as N = {sizes[-1]}"
        ),
        numbers=numbers,
    )


STUDY = Study(
    name="ratio-predicts-misclassification",
    claim="The ratio of outliers to bulk is predictive of misclassification",
    source="Papyan (2020) §8.2, after Theorem 8.1",
    prediction="as SNR grows the ratio grows and test error falls, in every sweep",
    tolerance="Spearman rank correlation below -0.95: one or two exchanges of neighbours",
    run=run,
)
