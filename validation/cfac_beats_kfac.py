"""CFAC is a better proxy for G^l than KFAC, because classes are classes."""

from __future__ import annotations

from pathlib import Path

from deepspec.report.plots import curvature_by_depth, curvature_spectra
from deepspec.report.plots.style import png
from validation._curvature import EPOCHS, moments
from validation._study import Profile, Study, Verdict

MOST = 0.8


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def run(profile: Profile, folder: Path | None) -> Verdict:
    """The log-ratios of the top C at every layer: KFAC, CFAC, CFAC with shuffled labels."""
    numbers: dict[str, float] = {}
    sentences: list[str] = []
    better: list[bool] = []
    sharper: list[bool] = []
    for kind, runs in moments(profile).items():
        for epoch in runs[0]:
            several = [run[epoch] for run in runs]
            depth = len(several[0].shuffled)
            for place in range(depth):
                layers = [m.agreement.layers[place] for m in several]
                for name in layers[0].by_approximation:
                    key = f"{kind}_{epoch}_{place}_{name}"
                    numbers[f"{key}_log_ratio"] = mean([x[name].log_ratio_top for x in layers])
                    numbers[f"{key}_error"] = mean([x[name].relative_error for x in layers])
                null = [m.shuffled[place] for m in several]
                key = f"{kind}_{epoch}_{place}_shuffled"
                numbers[f"{key}_log_ratio"] = mean([x.log_ratio_top for x in null])
                numbers[f"{key}_error"] = mean([x.relative_error for x in null])
                if epoch == EPOCHS:
                    pairs = list(zip(layers, null, strict=True))
                    better += [
                        x["cfac"].log_ratio_top < x["kfac"].log_ratio_top / 2 for x in layers
                    ]
                    sharper += [x["cfac"].log_ratio_top < n.log_ratio_top / 2 for x, n in pairs]
        for epoch in (0, EPOCHS):
            shown = ", ".join(
                f"{numbers[f'{kind}_{epoch}_{place}_kfac_log_ratio']:.2f}/"
                f"{numbers[f'{kind}_{epoch}_{place}_shuffled_log_ratio']:.2f}/"
                f"{numbers[f'{kind}_{epoch}_{place}_cfac_log_ratio']:.2f}"
                for place in range(len(runs[0][epoch].shuffled))
            )
            sentences.append(f"{kind}, {epoch} epochs, KFAC/shuffled/CFAC by layer: {shown}")
        if folder is not None:
            found = runs[0][EPOCHS].agreement
            figures = {"by-depth": curvature_by_depth(found), "spectra": curvature_spectra(found)}
            for what, figure in figures.items():
                (folder / f"curvature-{kind}-{what}.png").write_bytes(png(figure))
    numbers["twice_as_near_as_kfac"] = mean([float(answer) for answer in better])
    numbers["twice_as_near_as_shuffled"] = mean([float(answer) for answer in sharper])
    passed = min(numbers["twice_as_near_as_kfac"], numbers["twice_as_near_as_shuffled"]) >= MOST
    return Verdict(passed, "; ".join(sentences), numbers)


STUDY = Study(
    name="cfac-beats-kfac",
    claim="CFAC predicts the top C eigenvalues of G^l much better than KFAC does",
    source="Papyan (2020) §7.10–7.11, Figs. 11 and 12",
    prediction=(
        "after training, at every layer of perceptrons and convnets; not with shuffled labels in "
        "place of classes"
    ),
    tolerance=(
        "mean |log ratio| of the top C, trained nets: CFAC's below half of KFAC's, and below half "
        "of that of CFAC with shuffled labels (null), at 80 % of all layers and seeds"
    ),
    run=run,
)
