"""The four claims about a second moment (Papyan 2020, §1.11 and §6.1), each beside its nulls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.knockouts import (
    recycled_values,
    removed_share,
    times,
    top_values,
)
from deepspec.attribution.measurement import Measurement, without_zero_pairs
from deepspec.attribution.nulls import shuffled_labels, without_random_subspace
from deepspec.attribution.removal import Measured, knock_out
from deepspec.attribution.seeding import stream
from deepspec.attribution.verdicts import Finding, judge
from deepspec.class_structure.cells import Cells
from deepspec.class_structure.gram import descending
from deepspec.class_structure.parts import (
    BetweenClass,
    CellMeans,
    CrossClass,
    GlobalMean,
    MeanPart,
)
from deepspec.krylov import Eigenpairs

OUTLIER_MARGIN = 1.25
NULL_TOLERANCE = 1e-2
CAUSES = {"top outlier": "global_mean", "outliers": "between_class", "mini-bulk": "cross_class"}
FEATURE_SHARE = 1e-3


class BeyondGlobalMean(MeanPart):
    """P_class − P_global: class means, the global mean left out."""

    name = "centred_class_means"

    @property
    def rank(self) -> int:
        return BetweenClass(self.cells).rank - GlobalMean(self.cells).rank

    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        return BetweenClass(self.cells).on_cells(cells) - GlobalMean(self.cells).on_cells(cells)


def above(values: Float[Tensor, " k"], edge: float) -> int:
    """How many eigenvalues stand clear of the bulk: above 1.25 times its edge.

    >>> above(torch.tensor([3.0, 2.0, 1.0]), 1.0)
    2
    """
    return int((values > OUTLIER_MARGIN * edge).sum())


def selectivity(measured: Measurement, means_top: Float[Tensor, " k"], tails: float) -> float:
    """Share of the bulk removed less share of the outliers removed, when within is knocked out.

    Knocking out V_within leaves rank C² and so removes most of any bulk, whatever the labels: what
    makes it the bulk's own cause is that the C outliers stay. ``tails`` is the share of V's trace
    beyond its top C that is left.
    """
    places = measured.places
    whole = float(measured.pairs.values[:places].sum())
    kept = min(1.0, float(means_top[:places].sum()) / whole) if whole else 0.0
    return max(0.0, (1.0 - tails) - (1.0 - kept))


def removed_by(
    measured: Measurement, knockouts: Mapping[str, Measured], tail_trace: float
) -> dict[str, float]:
    """The share of its feature that each cause removes by subtraction."""
    shares = {}
    for claim, part in CAUSES.items():
        if claim == "mini-bulk" and measured.located is not None:
            shares[claim] = measured.located.removed(CrossClass(measured.array.cells).basis)
        else:
            shares[claim] = measured.removed(part, knockouts[part][0].subtracted)
    within, whole = knockouts["within_class"]
    gram = measured.means.gram
    if measured.means.complete:
        left = float(gram.trace()) - float(within.subtracted[: measured.count].sum())
    else:
        left = whole.tail_trace if whole is not None else 0.0
    tails = min(1.0, left / tail_trace) if tail_trace > 0 else math.nan
    shares["bulk"] = selectivity(measured, within.subtracted, tails)
    return shares


def untrained_shares(measured: Measurement, tail_trace: float) -> dict[str, float]:
    """The same without nulls or spectra: for the untrained net."""
    knockouts = {
        part: knock_out(measured, part, thorough=part == "within_class")
        for part in (*CAUSES.values(), "within_class")
    }
    return removed_by(measured, knockouts, tail_trace)


class _Nulls:
    """What each null's draws remove."""

    def __init__(self, measured: Measurement) -> None:
        self.measured = measured
        self.known = without_zero_pairs(measured)
        self.count = measured.looked_at("cross_class")
        self.beyond = beyond_global_mean(measured, self.known)

    def recycled(self, part: MeanPart, name: str) -> float:
        """The share of a part's claimed feature that another part of its kind removes."""
        left = recycled_values(self.measured.operator, part, self.known, self.count)
        return self.measured.removed(name, left)

    def mini_bulk(self, part: MeanPart) -> float:
        """What it takes from where the mini-bulk is, or (S not formed) from its places."""
        located = self.measured.located
        if located is not None:
            return located.removed(part.basis)
        return self.recycled(part, "cross_class")

    def bulk(self, cells: Cells) -> float:
        """The selectivity of scatter about other means."""
        measured, means = self.measured, CellMeans(cells)
        if measured.means.complete:
            basis = means.basis
            kept = descending(basis.T @ times(measured.operator, basis)).cpu()
        else:
            within = measured.array.relabelled(cells.classes).projector("within_class")
            inside = measured.operator.project_out(within)
            start = means @ self.known.vectors[:, : measured.places].to(means.dtype)
            kept = top_values(inside, measured.places, start, tol=NULL_TOLERANCE)
        return selectivity(measured, kept, 0.0)

    def random(self, name: str, draw: int) -> float:
        """The share that a random subspace of the part's rank removes."""
        measured = self.measured
        rank = max(1, measured.part(name).rank)
        if name == "cross_class" and measured.located is not None:
            located = measured.located
            basis = torch.randn(
                measured.operator.size,
                min(rank, measured.operator.size),
                generator=stream(measured.settings.seed, "random rows", draw),
                dtype=torch.float64,
            )
            return located.removed(torch.linalg.qr(basis)[0].to(located.vectors.device))
        left = without_random_subspace(
            measured.array.rows, self.known, rank, self.count, measured.settings.seed, draw
        )
        return measured.removed(name, left)


def beyond_global_mean(measured: Measurement, known: Eigenpairs) -> Callable[[Cells], float]:
    """The share of the top C that means of groups remove beyond what the global mean removes.

    Means over *any* groups carry the global mean, which is the same for all of them: on a nearly
    interpolating net, whose top outlier is the global mean, they remove most of Σ λ_i whatever the
    groups are. So the global mean is knocked out first, on either side of the comparison.
    """
    cells = measured.array.cells
    center = GlobalMean(cells)
    before = recycled_values(measured.operator, center, known, measured.looked_at("cross_class"))
    wide = torch.cat([before, before.new_zeros(1)])

    def removed(groups: Cells) -> float:
        part = BetweenClass(groups)
        left = recycled_values(measured.operator, part, known, len(before))
        return removed_share(wide, left, 0, measured.places, max(1, part.rank - center.rank))

    return removed


def nulls_of(
    measured: Measurement,
) -> tuple[dict[str, dict[str, Float[Tensor, " b"]]], dict[str, dict[str, float]]]:
    """For each claim and null the shares that its draws remove; and what they are held against.

    The second says so only where it is not the share removed itself.
    """
    settings, cells = measured.settings, measured.array.cells
    nulls = _Nulls(measured)
    found: dict[str, dict[str, list[float]]] = {
        "top outlier": {"shuffled labels": [], "a random subspace": []},
        "outliers": {"shuffled labels": [], "regrouped samples": [], "a random subspace": []},
        "mini-bulk": {"shuffled labels": [], "a random subspace": []},
        "bulk": {"shuffled labels": []},  # a random subspace shrinks bulk and outliers alike
    }
    for draw in range(settings.draws):
        shuffled_of_samples = shuffled_labels(cells.sample_classes, settings.seed, draw)
        labels = cells.of_samples(shuffled_of_samples)
        shuffled = cells.relabelled(labels)
        for claim, kind in (("top outlier", GlobalMean), ("outliers", BetweenClass)):
            found[claim]["shuffled labels"].append(nulls.recycled(kind(shuffled), CAUSES[claim]))
        found["outliers"]["regrouped samples"].append(nulls.beyond(cells.regrouped(labels)))
        if draw < settings.costly_draws:
            found["mini-bulk"]["shuffled labels"].append(nulls.mini_bulk(CrossClass(shuffled)))
            found["bulk"]["shuffled labels"].append(nulls.bulk(shuffled))
            for claim, part in CAUSES.items():
                found[claim]["a random subspace"].append(nulls.random(part, draw))
    draws = {
        claim: {
            name: torch.tensor([0.0 if math.isnan(v) else v for v in draws], dtype=torch.float64)
            for name, draws in by_name.items()
        }
        for claim, by_name in found.items()
    }
    return draws, {"outliers": {"regrouped samples": nulls.beyond(cells)}}


def judge_claims(
    measured: Measurement,
    knockouts: Mapping[str, Measured],
    tail_trace: float,
    edge: float,
    untrained: dict[str, float],
) -> tuple[Finding, ...]:
    """All four findings."""
    shares = removed_by(measured, knockouts, tail_trace)
    nulls, against = nulls_of(measured)
    values = measured.pairs.values.cpu()
    there = above(values[: 2 * measured.count], edge)
    bulk = float(values[: measured.count].sum())
    located = measured.located
    mini = int(located.members.sum()) if located is not None else measured.mini
    present = {
        "top outlier": there > 0 and float(values[0]) > OUTLIER_MARGIN * float(values[1]),
        "outliers": there > 0,
        "mini-bulk": mini > 0,
        "bulk": tail_trace > FEATURE_SHARE * (bulk + tail_trace) and there > 0,
    }
    findings = []
    for claim, removed in shares.items():
        projected, at_most = math.nan, removed
        if claim in CAUSES and not (claim == "mini-bulk" and located is not None):
            cause, _ = knockouts[CAUSES[claim]]
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
                against=against.get(claim, {}),
            )
        )
    return tuple(findings)
