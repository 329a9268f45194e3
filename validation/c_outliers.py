"""At the optimum there are C-1 outliers, not C, and level 1 overstates the bulk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import ccm
from ccm.plots.levels import plot_symmetric_against_bayes, save_figure
from validation._study import Profile, Study, Verdict


def run(profile: Profile, folder: Path | None) -> Verdict:
    """Where the gap in a fitted spectrum is, and how large its bulk, for several C and t."""
    # For C = 3 a single antisymmetric eigenvalue follows the C-1 = 2 and looks like a third.
    cases = [(4, 2.0), (5, 2.5), (10, 3.0)]
    if profile == "full":
        cases += [(4, 1.5), (5, 1.5), (7, 2.0), (10, 2.0)]
    samples = 60_000 if profile == "quick" else 400_000
    numbers: dict[str, float] = {}
    checks, sentences = [], []
    for seed, (C, snr) in enumerate(cases):
        model = ccm.CanonicalClassificationModel(2 * C, C, snr)
        X, y = model.sample(samples // C, seed=seed)
        p = ccm.fit_logistic(X, y).probabilities(X)
        top = ccm.leading_eigenvalues(X, p, C + 1)
        # The bulk are the noise coordinates: E x_d² (1 - |p|²)/(C-1) over d > C, sample by sample.
        forms = (X[:, C:] ** 2).mean(axis=1) * (1 - (p**2).sum(axis=1)) / (C - 1)
        bulk, error = forms.mean(), forms.std() / np.sqrt(len(forms))
        alpha = model.bayes_alpha()
        level_1 = ccm.symmetric_spectrum(model, alpha)
        factor = level_1.level("bulk").value / bulk
        predicted = 2 - alpha * C / (C - 1)
        theory = ccm.bayes_spectrum(model).eigenvalues
        before, after = top[C - 2] / top[C - 1], top[C - 1] / top[C]
        key = f"C{C}_t{snr:g}"
        numbers |= {
            f"{key}_gap_after_C-1": float(before),
            f"{key}_gap_after_C": float(after),
            f"{key}_bulk_overstated_by": float(factor),
            f"{key}_predicted": predicted,
        }
        # The fit bends p by O(DC/n); 2 % leaves room for it in the smallest case.
        allowed = (4 * error / bulk + 0.02) * predicted
        checks += [
            abs(before / (theory[C - 2] / theory[C - 1]) - 1) < 0.1,
            before > 1.2 and after < 1.1,
            abs(factor - predicted) < allowed,
        ]
        sentences.append(
            f"C = {C}, t = {snr:g}: λ_{C - 1}/λ_{C} = {before:.2f}, λ_{C}/λ_{C + 1} = {after:.2f}, "
            f"bulk overstated by {factor:.3f} (predicted {predicted:.3f})"
        )
    if folder is not None:
        model = ccm.CanonicalClassificationModel(20, 10, 1.0)
        save_figure(
            plot_symmetric_against_bayes(model, np.linspace(0, 6, 40)), folder / "levels.png"
        )
    return Verdict(passed=all(checks), finding="; ".join(sentences), numbers=numbers)


STUDY = Study(
    name="c-outliers",
    claim="There are C outliers, above a bulk of α/(C-1)·(2 - αC/(C-1))",
    source="Papyan (2020) Theorem 8.1, corrected by level 3 (docs/theory.md §2)",
    prediction=(
        "at the optimum C-1 outliers, and a bulk of α/(C-1): level 1 overstates it by 2 - αC/(C-1)"
    ),
    tolerance=(
        "for C ≥ 4: gap after C-1 within 10 % of level 3 and above 1.2, none (below 1.1) after C; "
        "bulk factor within 4 s.e. + 2 % (bias of the fit, order DC/n)"
    ),
    run=run,
)
