"""The four claims about G ([002] §1.11 and §6.1), each beside its nulls."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.gauss_newton_measurement import (
    Knockout,
    Measurement,
    knock_out,
    without_pairs,
)
from deepspec.attribution.knockouts import recycled_values, top_values
from deepspec.attribution.nulls import (
    regrouped_frame,
    shuffled_labels,
    without_random_subspace,
)
from deepspec.attribution.verdicts import Finding, judge
from deepspec.class_structure.parts import (
    BetweenClass,
    Complement,
    CrossClass,
    GlobalMean,
    Means,
    cell_frame,
)

CLEAR = 1.25
ROUGH = 1e-2
CAUSES = {"top outlier": "global_mean", "outliers": "between_class", "mini-bulk": "cross_class"}


def above(values: Float[Tensor, " k"], edge: float) -> int:
    """How many eigenvalues stand clear of the bulk: above 1.25 times its edge.

    >>> above(torch.tensor([3.0, 2.0, 1.0]), 1.0)
    2
    """
    return int((values > CLEAR * edge).sum())


def selectivity(measured: Measurement, means_top: Float[Tensor, " k"], tails: float) -> float:
    """Share of the bulk removed less share of the outliers removed, when within is knocked out.

    Knocking out G_within leaves rank C² and so removes most of any bulk, whatever the labels: what
    makes it the bulk's own cause is that the C outliers stay. ``tails`` is the share of G's trace
    beyond its top C that is left.
    """
    places = measured.places
    whole = float(measured.pairs.values[:places].sum())
    kept = min(1.0, float(means_top[:places].sum()) / whole) if whole else 0.0
    return max(0.0, (1.0 - tails) - (1.0 - kept))


def removed_by(
    measured: Measurement, knockouts: dict[str, Knockout], tail_trace: float
) -> dict[str, float]:
    """The share of its feature that each cause removes by subtraction."""
    shares = {
        claim: measured.removed(part, knockouts[part].subtracted) for claim, part in CAUSES.items()
    }
    within = knockouts["within_class"]
    gram = measured.means.gram
    if measured.means.complete:
        left = float(gram.trace()) - float(within.subtracted[: measured.count].sum())
    else:
        left = within.spectrum.tail_trace if within.spectrum is not None else 0.0
    tails = min(1.0, left / tail_trace) if tail_trace > 0 else math.nan
    shares["bulk"] = selectivity(measured, within.subtracted, tails)
    return shares


def light_shares(measured: Measurement, tail_trace: float) -> dict[str, float]:
    """The same without nulls or spectra: for the untrained net."""
    knockouts = {
        part: knock_out(measured, part, thorough=part == "within_class")
        for part in (*CAUSES.values(), "within_class")
    }
    return removed_by(measured, knockouts, tail_trace)


def nulls_of(measured: Measurement) -> dict[str, dict[str, Float[Tensor, " b"]]]:
    """For each claim and null, the shares that its draws remove."""
    settings, problem = measured.settings, measured.problem
    known = without_pairs(measured)
    few = settings.costly_draws
    found: dict[str, dict[str, list[float]]] = {
        "top outlier": {"shuffled labels": [], "a random subspace": []},
        "outliers": {"shuffled labels": [], "regrouped samples": [], "a random subspace": []},
        "mini-bulk": {"shuffled labels": [], "a random subspace": []},
        "bulk": {"shuffled labels": []},  # a random subspace shrinks bulk and outliers alike
    }
    count = measured.looked_at("cross_class")
    for draw in range(settings.draws):
        labels = shuffled_labels(problem, settings.seed, draw)
        frame = cell_frame(problem, settings.convention, labels)
        for claim, kind in (("top outlier", GlobalMean), ("outliers", BetweenClass)):
            left = recycled_values(measured.operator, kind(frame), known.pairs, count)
            found[claim]["shuffled labels"].append(measured.removed(CAUSES[claim], left))
        regrouped = BetweenClass(regrouped_frame(problem, labels, settings.convention))
        left = recycled_values(measured.operator, regrouped, known.pairs, count)
        found["outliers"]["regrouped samples"].append(measured.removed("between_class", left))
        if draw < few:
            left = recycled_values(measured.operator, CrossClass(frame), known.pairs, count)
            found["mini-bulk"]["shuffled labels"].append(measured.removed("cross_class", left))
            inside = measured.operator.project_out(Complement(Means(frame)))
            start = Means(frame) @ known.pairs.vectors[:, : measured.places]
            kept = top_values(inside, measured.places, start, tol=ROUGH)
            found["bulk"]["shuffled labels"].append(selectivity(measured, kept, 0.0))
            for claim, part in CAUSES.items():
                rank = measured.part(part).rank
                seed = 104_729 * (settings.seed + 1) + draw
                left = without_random_subspace(
                    measured.gram, known.pairs, max(rank, 1), count, seed
                )
                found[claim]["a random subspace"].append(measured.removed(part, left))
    return {
        claim: {
            name: torch.tensor([0.0 if math.isnan(v) else v for v in draws], dtype=torch.float64)
            for name, draws in nulls.items()
        }
        for claim, nulls in found.items()
    }


def judge_claims(
    measured: Measurement,
    knockouts: dict[str, Knockout],
    tail_trace: float,
    edge: float,
    untrained: dict[str, float],
) -> tuple[Finding, ...]:
    """All four findings."""
    shares = removed_by(measured, knockouts, tail_trace)
    nulls = nulls_of(measured)
    values = measured.pairs.values.cpu()
    there = above(values[: 2 * measured.count], edge)
    bulk = float(values[: measured.count].sum())
    present = {
        "top outlier": there > 0 and float(values[0]) > CLEAR * float(values[1]),
        "outliers": there > 0,
        "mini-bulk": measured.mini > 0,
        "bulk": tail_trace > 1e-3 * (bulk + tail_trace) and there > 0,
    }
    findings = []
    for claim, removed in shares.items():
        projected, at_most = math.nan, removed
        if claim in CAUSES:
            cause = knockouts[CAUSES[claim]]
            at_most = measured.removed_at_most(CAUSES[claim], cause.subtracted)
            if not bool(cause.projected.isnan().any()):
                projected = measured.removed(CAUSES[claim], cause.projected)
        findings.append(
            judge(
                claim,
                removed,
                projected,
                nulls[claim],
                present=present[claim],
                untrained=untrained.get(claim, math.nan),
                at_most=at_most,
            )
        )
    return tuple(findings)
