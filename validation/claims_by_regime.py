"""Where each claim becomes true: p/(nC), n, or training time?"""

from __future__ import annotations

import math
from pathlib import Path

from scipy.stats import spearmanr

from deepspec.attribution import CLAIMS
from deepspec.report.plots.regimes import Place, regime_map
from deepspec.report.plots.style import png
from validation._study import Profile, Study, Verdict
from validation._swept import regimes


def places(profile: Profile) -> list[Place]:
    """Every claim about every net, early and late."""
    found = []
    for run in regimes(profile).runs:
        for epoch, split in run.claims.items():
            net = run.at(epoch)
            found += [
                Place(
                    claim=finding.claim,
                    parameters=net.parameters,
                    samples=net.samples,
                    classes=net.classes,
                    epoch=epoch,
                    removed=finding.removed,
                    answer=finding.answer,
                )
                for finding in split.findings
            ]
    return found


def correlation(x: list[float], y: list[float]) -> float:
    """Spearman's, 0 where one of the two never changes."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0
    return float(spearmanr(x, y).statistic)


def run(profile: Profile, folder: Path | None) -> Verdict:
    """For each claim the rank correlation of the share removed with what may decide it."""
    everything = places(profile)
    numbers: dict[str, float] = {}
    words = []
    for claim in CLAIMS:
        mine = [p for p in everything if p.claim == claim and not math.isnan(p.removed)]
        shares = [place.removed for place in mine]
        by = {
            "p/(nC)": correlation([place.regime for place in mine], shares),
            "n": correlation([float(place.samples) for place in mine], shares),
            "epoch": correlation([float(place.epoch) for place in mine], shares),
        }
        key = claim.replace(" ", "_")
        numbers |= {f"{key}_with_{name}": value for name, value in by.items()}
        supported = [place.regime for place in mine if place.answer == "supported"]
        numbers[f"{key}_supported"] = len(supported) / max(1, len(mine))
        most = max(by, key=lambda name: abs(by[name]))
        where = f", from p/(nC) = {min(supported):.2g}" if supported else ""
        words.append(
            f"{claim}: {len(supported)} of {len(mine)} supported{where}; goes most with {most} "
            f"({by[most]:+.2f})"
        )
    if folder is not None:
        (folder / "regime-map.png").write_bytes(png(regime_map(everything)))
    decided = numbers["bulk_of_Hess_with_p/(nC)"]
    return Verdict(decided > 0.5, "; ".join(words), numbers)


STUDY = Study(
    name="regime-map",
    claim="The bulk of Hess comes from E where there are many more parameters than nC",
    source="Papyan (2019) §1, Papyan (2020) §5.1, whose nets have p/(nC) of 50 to 200,000",
    prediction="the share of the bulk's energy that goes with E grows with p/(nC)",
    tolerance="rank correlation above 0.5 over widths and sample sizes (MLP, train)",
    run=run,
)
