"""λ_i(G) ≥ λ_i(G1+2) ≥ λ_i(G1), and averages alone give the outliers."""

from __future__ import annotations

from pathlib import Path

import torch

from deepspec.attribution import SplitAttribution
from deepspec.report.plots import scree
from deepspec.report.plots.style import png
from validation._attributed import attributions, mean, over_nets
from validation._study import Profile, Study, Verdict

CLOSE = 0.2


def gap(split: SplitAttribution, convention: str, one: str, other: str) -> float:
    """The mean relative gap between the top C − 1 eigenvalues of two parts ("G": all of it)."""
    parts = {d.convention: d for d in split.decompositions}[convention]
    count = len(split.class_counts) - 1
    upper = split.top if one == "G" else parts.part(one).top
    lower = parts.part(other).top
    return float((1 - lower[:count] / upper[:count]).mean())


def violated(split: SplitAttribution) -> float:
    """The largest relative violation of the inequalities, in either convention."""
    worst = 0.0
    for parts in split.decompositions:
        means, classes = parts.part("means").top, parts.part("between_class").top
        whole = split.top[: len(means)]
        beyond = torch.maximum((means - whole) / whole, (classes - means) / whole)
        worst = max(worst, float(beyond.max()))
    return worst


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The inequalities, and the size of the two gaps in each convention."""
    numbers: dict[str, float] = {}
    for convention in ("jmlr2020", "icml2019"):
        for one, other in (("G", "means"), ("means", "between_class")):
            gaps = over_nets(
                profile, lambda split, a=convention, b=one, c=other: gap(split, a, b, c)
            )
            for key, values in gaps.items():
                numbers[f"{key}_{convention}_{one}_to_{other}"] = mean(values)
    worst = max(value for values in over_nets(profile, violated).values() for value in values)
    numbers["largest_violation"] = worst
    close = {
        key: value
        for key, value in numbers.items()
        if key.endswith("train_icml2019_G_to_means")
        or key.endswith("train_icml2019_means_to_between_class")
    }
    if folder is not None:
        for kind, nets in attributions(profile).items():
            (folder / f"scree-{kind}.png").write_bytes(png(scree(nets[0].train)))
    found = "; ".join(
        f"{key.replace('_', ' ')}: {100 * value:.0f} % below"
        for key, value in numbers.items()
        if "train" in key
    )
    passed = worst < 1e-4 and all(value < CLOSE for value in close.values())
    return Verdict(passed, f"largest violation {worst:.1e}; {found}", numbers)


STUDY = Study(
    name="averages-bound-outliers",
    claim="λ_i(G) ≥ λ_i(G1+2) ≥ λ_i(G1), the three usually very close for the top C",
    source="Papyan (2019) §1.1 and Fig. 7",
    prediction="the inequalities always; the outliers of G close to the eigenvalues of averages",
    tolerance=(
        "inequalities to 1e-4 (eigenvalues are converged to that); in the convention of 2019 mean "
        "gaps below 20 % over the top C − 1, train"
    ),
    run=run,
)
