"""The outliers of G from averages and a few products each."""

from __future__ import annotations

from pathlib import Path

from deepspec.report.plots import scree
from deepspec.report.plots.style import png
from validation._attributed import attributions, mean, over_nets
from validation._study import Profile, Study, Verdict


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The largest relative error over the top C − 1, by each method."""
    numbers: dict[str, float] = {}
    for method in ("class_only", "means", "first_order", "root", "coupled"):
        errors = over_nets(
            profile,
            lambda split, m=method: float(
                split.predicted.relative_error(m)[: len(split.class_counts) - 1]
                .abs()
                .nan_to_num(1.0)
                .max()
            ),
        )
        for key, values in errors.items():
            numbers[f"{key}_{method}"] = mean(values)
            numbers[f"{key}_{method}_worst"] = max(values)
    if folder is not None:
        for kind, nets in attributions(profile).items():
            (folder / f"predictions-{kind}.png").write_bytes(png(scree(nets[0].train)))
    worst = max(value for key, value in numbers.items() if key.endswith("train_coupled_worst"))
    finding = "; ".join(
        f"{key.replace('_', ' ')} {100 * value:.2f} %"
        for key, value in numbers.items()
        if key.endswith(("train_means", "train_first_order", "train_root", "train_coupled"))
    )
    return Verdict(worst < 0.01, f"largest error, mean over seeds: {finding}", numbers)


STUDY = Study(
    name="outliers-from-few-products",
    claim="The deviation of the outliers from their means can be predicted",
    source="ours (THEORY, Outliers beyond their means); left open in Papyan (2019) §6",
    prediction="det(diag(1/ℓ) − Uᵀ(λ − G_within)⁻¹U) = 0 from at most 20 products an outlier",
    tolerance="below 1 % for each of the top C − 1, every seed and kind of net, train",
    run=run,
)
