"""The gradient lives in the top-C subspace of the Hessian."""

from __future__ import annotations

from pathlib import Path

from validation._attributed import mean, over_nets
from validation._study import Profile, Study, Verdict


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The share of the loss gradient inside the top C eigenvectors, and inside class means."""
    numbers: dict[str, float] = {}
    for space in ("Hess", "G", "class means"):
        shares = over_nets(profile, lambda split, s=space: split.alignment.gradient_share[s])
        for key, values in shares.items():
            numbers[f"{key}_{space.replace(' ', '_')}"] = mean(values)
    passed = all(value > 0.5 for key, value in numbers.items() if key.endswith("train_Hess"))
    finding = "; ".join(
        f"{key.replace('_', ' ')} {100 * value:.0f} %" for key, value in numbers.items()
    )
    return Verdict(passed, finding, numbers)


STUDY = Study(
    name="gradient-in-top-subspace",
    claim="Gradients live in the subspace of the top C eigenvectors of the Hessian",
    source="Gur-Ari et al. (2018), as cited in Papyan (2019) §1",
    prediction="most of the gradient's square lies in that subspace at the end of training",
    tolerance="more than half of it, mean over seeds, train, every kind of net",
    run=run,
)
