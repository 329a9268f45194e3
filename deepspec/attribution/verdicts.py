"""From a removed share and its nulls to a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import scipy.stats
from jaxtyping import Float
from torch import Tensor

from deepspec.storage.display import Result

Answer = Literal["supported", "not supported", "not decided"]

# The thresholds of a verdict: what supports a claim, what refutes it, and the tests' level.
SUPPORT_SHARE = 0.5
REFUTE_SHARE = 0.25
SIGNIFICANCE = 0.01
LEAST_SPREAD = 0.01


@dataclass(frozen=True)
class Claim:
    """One attribution of the papers: a feature of a spectrum, and what is said to cause it."""

    name: str
    feature: str
    cause: str
    source: str


CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "top outlier", "the single top outlier of G", "the global mean", "Papyan (2020) §1.11"
        ),
        Claim(
            "outliers",
            "the C top outliers of G",
            "the class means",
            "Papyan (2019) §1.1, Papyan (2020) §6.1",
        ),
        Claim("mini-bulk", "the C² mini-bulk of G", "the cross-class means", "Papyan (2020) §6.1"),
        Claim("bulk", "the bulk of G", "scatter within classes", "Papyan (2020) §6.1"),
        Claim("outliers of Hess", "the outliers of the Hessian", "G", "Papyan (2020) §5.1"),
        Claim(
            "bulk of Hess", "the bulk of the Hessian", "E", "Papyan (2019) §1, Papyan (2020) §5.1"
        ),
    )
}


# What each null stands for, as the subject of "… as much".
NULLS = {
    "a random subspace": "a knockout of any subspace so large removes",
    "shuffled labels": "means over meaningless classes remove",
    "regrouped samples": "means over random groups of samples remove, beyond the global mean,",
}
WHAT_HELPS = (
    "means over more samples per class would tell them apart, as those of random groups shrink "
    "like one over their number."
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Finding(Result):
    """What became of one claim.

    Attributes
    ----------
    claim
        A key of :data:`CLAIMS`.
    removed
        The share of the feature that goes when its cause is knocked out by subtraction.
    by_projection
        The same for the projection knockout; NaN where that was not measured.
    nulls
        For each null the shares that its draws remove.
    untrained
        The share removed in the untrained net; NaN where there is none.
    present
        Whether the feature is there at all.
    answer, reason
        The verdict of :func:`judge`.
    against
        What a null's draws are held against, where that is not ``removed``.
    """

    claim: str
    removed: float
    by_projection: float
    nulls: dict[str, Float[Tensor, " b"]]
    untrained: float
    present: bool
    answer: str
    reason: str
    against: dict[str, float] = field(default_factory=dict)

    def _words(self) -> list[str]:
        claim = CLAIMS.get(self.claim)
        named = f"{claim.feature} from {claim.cause}" if claim else self.claim
        gone = "" if math.isnan(self.removed) else f", {self.removed:.0%} removed"
        return [f"{named}: {self.answer}{gone}", self.reason]

    @property
    def advice(self) -> str:
        """What an undecided verdict means and what would decide it, in one sentence."""
        if self.answer != "not decided":
            return ""
        if not self.present or math.isnan(self.removed):
            return "There is nothing to explain here: train longer, or look at another claim."
        ties = [
            name
            for name, draws in self.nulls.items()
            if len(draws) and self.against.get(name, self.removed) <= float(draws.max())
        ]
        if ties:
            meanings = " and ".join(NULLS.get(name, f"{name} do") for name in ties)
            return f"The cause is not shown to be it, since {meanings} as much: {WHAT_HELPS}"
        if "too few" in self.reason:
            return "It is above every null, but chance is not ruled out: ask for more draws."
        return "It is one cause beside others: look at the table of parts for the rest of them."


def exceeds(observed: float, draws: Float[Tensor, " b"]) -> bool:
    """Whether a value lies above a null's draws: above each one, and beyond their spread.

    t = (R − mean)/(s √(1 + 1/B)) above the 99 % quantile of Student's t with B − 1 degrees of
    freedom, s their standard deviation but at least 0.01: a hundredth of a feature is no effect.

    >>> import torch
    >>> exceeds(0.9, torch.tensor([0.1, 0.12, 0.08]))
    True
    >>> exceeds(0.13, torch.tensor([0.1, 0.12, 0.08]))
    False
    """
    count = len(draws)
    if count < 2 or math.isnan(observed) or observed <= float(draws.max()):
        return False
    spread = max(LEAST_SPREAD, float(draws.double().std()))
    t = (observed - float(draws.double().mean())) / (spread * math.sqrt(1 + 1 / count))
    return bool(t > scipy.stats.t.ppf(1 - SIGNIFICANCE, count - 1))


def judge(
    claim: str,
    removed: float,
    by_projection: float,
    nulls: dict[str, Float[Tensor, " b"]],
    *,
    present: bool,
    untrained: float = math.nan,
    at_most: float = math.nan,
    against: Mapping[str, float] | None = None,
) -> Finding:
    """The verdict on one claim.

    The rule, with R the share removed by subtraction and every null's draws measured alike:

    * **not decided** if the feature is not there to be removed;
    * **supported** if R ≥ 1/2 and R lies above every null (:func:`exceeds`, level 1 %);
    * **not decided** if R is known from below only, R < 1/4 and ``at_most`` ≥ 1/4;
    * **not decided** if R ≥ 1/2 but a null does as much (so the cause is not shown to be it); if
      R ≥ 1/4 above every draw, but not so far that their number and spread rule out chance; or
      if 1/4 ≤ R < 1/2 above every null (a part of the cause, not the whole);
    * **not supported** otherwise.

    A null that is measured otherwise than R itself is held against what ``against`` names for it:
    random groups against what class means remove beyond the global mean.

    G itself does not know the labels, so under "labels have nothing to do with it" the shuffled
    ones are as good as the true ones, and that null is a permutation test.

    Raises
    ------
    ValueError
        If there is no null to compare with.
    """
    if not nulls:
        raise ValueError(f"expected at least one null for {claim!r}, got none")
    observed = {name: (against or {}).get(name, removed) for name in nulls}
    beaten = [name for name, draws in nulls.items() if observed[name] <= float(draws.max())]
    unsure = [
        f"{len(draws)} draws of {name}"
        for name, draws in nulls.items()
        if name not in beaten and not exceeds(observed[name], draws)
    ]
    answer: Answer
    if not present or math.isnan(removed):
        answer, reason = "not decided", "the feature is not there to be removed"
    elif removed < REFUTE_SHARE <= at_most:
        answer = "not decided"
        reason = f"between {removed:.0%} and {at_most:.0%} of it goes; not all its places are known"
    elif removed < REFUTE_SHARE:
        answer, reason = "not supported", "little of it goes"
    elif beaten:
        answer = "not decided" if removed >= SUPPORT_SHARE else "not supported"
        much = "most of it goes, but also" if removed >= SUPPORT_SHARE else "a part of it goes, as"
        reason = f"{much} with {' and '.join(beaten)}"
    elif unsure:
        much = "most" if removed >= SUPPORT_SHARE else "a part"
        reason = f"{much} of it goes, more than with any null, but {' and '.join(unsure)} are "
        answer, reason = "not decided", reason + "too few, or too scattered, to rule out chance"
    elif removed >= SUPPORT_SHARE:
        answer, reason = "supported", "most of it goes, and no null removes as much"
    else:
        answer, reason = "not decided", "a part of it goes, more than with any null, but not most"
    return Finding(
        claim=claim,
        removed=removed,
        by_projection=by_projection,
        nulls=nulls,
        untrained=untrained,
        present=present,
        answer=answer,
        reason=reason,
        against=dict(against or {}),
    )
