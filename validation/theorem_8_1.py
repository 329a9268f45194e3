"""Theorem 8.1 against simulated FIMs at growing N."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import ccm
from validation._study import Profile, Study, Verdict

MODEL = ccm.CanonicalClassificationModel(dim=20, num_classes=4, snr=2.5)
ALPHA = 0.3


def worst_error(per_class: int, rng: np.random.Generator) -> float:
    """The largest distance of a simulated eigenvalue from Theorem 8.1's, per largest eigenvalue."""
    X, y = MODEL.sample(per_class, rng)
    fim = ccm.empirical_fim(X, ccm.symmetric_probabilities(MODEL.num_classes, ALPHA)[y])
    theory = ccm.symmetric_spectrum(MODEL, ALPHA).eigenvalues
    return float(np.abs(np.linalg.eigvalsh(fim)[::-1] - theory).max() / theory[0])


def run(profile: Profile, folder: Path | None) -> Verdict:
    """Errors at N growing fourfold, and the power at which they fall."""
    sizes = [100 * 4**k for k in range(5 if profile == "quick" else 7)]
    rng = np.random.default_rng(81)
    repeats = 6 if profile == "quick" else 12
    errors = [np.mean([worst_error(N, rng) for _ in range(repeats)]) for N in sizes]
    power = float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
    last = float(errors[-1])
    limit = 4 * np.sqrt(MODEL.dim / (sizes[-1] * MODEL.num_classes))
    numbers = {f"error_at_{N}": float(e) for N, e in zip(sizes, errors, strict=True)}
    return Verdict(
        passed=abs(power + 0.5) < 0.08 and last < limit,
        finding=(
            f"the worst eigenvalue error falls as N^{power:.3f}, to {last:.2%} of the largest "
            f"eigenvalue at N = {sizes[-1]}"
        ),
        numbers={**numbers, "power": power},
    )


STUDY = Study(
    name="theorem-8-1",
    claim="The FIM at symmetric probabilities has the spectrum of Theorem 8.1",
    source="Papyan (2020) Theorem 8.1",
    prediction="every eigenvalue of a simulated FIM tends to the theorem's as N^(-1/2)",
    tolerance=(
        "power -0.50 ± 0.08 (its standard deviation over seeds is 0.012) and a last error below "
        "4 sqrt(D/NC), the scale of |G - E G| / |E G|"
    ),
    run=run,
)
