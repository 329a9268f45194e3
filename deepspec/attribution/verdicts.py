"""From a removed share and its nulls to a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import scipy.stats
from jaxtyping import Float
from torch import Tensor

Answer = Literal["supported", "not supported", "not decided"]

MOST = 0.5
LITTLE = 0.25
LEVEL = 0.01
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
        Claim("top outlier", "the single top outlier of G", "the global mean", "[002] §1.11"),
        Claim("outliers", "the C top outliers of G", "the class means", "[000] §1.1, [002] §6.1"),
        Claim("mini-bulk", "the C² mini-bulk of G", "the cross-class means", "[002] §6.1"),
        Claim("bulk", "the bulk of G", "scatter within classes", "[002] §6.1"),
        Claim("outliers of Hess", "the outliers of the Hessian", "G", "[002] §5.1"),
        Claim("bulk of Hess", "the bulk of the Hessian", "E", "[000] §1, [002] §5.1"),
    )
}


@dataclass(frozen=True, eq=False)
class Finding:
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
    """

    claim: str
    removed: float
    by_projection: float
    nulls: dict[str, Float[Tensor, " b"]]
    untrained: float
    present: bool
    answer: str
    reason: str


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
    return bool(t > scipy.stats.t.ppf(1 - LEVEL, count - 1))


def judge(
    claim: str,
    removed: float,
    by_projection: float,
    nulls: dict[str, Float[Tensor, " b"]],
    *,
    present: bool,
    untrained: float = math.nan,
    at_most: float = math.nan,
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

    G itself does not know the labels, so under "labels have nothing to do with it" the shuffled
    ones are as good as the true ones, and that null is a permutation test.

    Raises
    ------
    ValueError
        If there is no null to compare with.
    """
    if not nulls:
        raise ValueError(f"expected at least one null for {claim!r}, got none")
    beaten = [name for name, draws in nulls.items() if removed <= float(draws.max())]
    unsure = [
        f"{len(draws)} draws of {name}"
        for name, draws in nulls.items()
        if name not in beaten and not exceeds(removed, draws)
    ]
    answer: Answer
    if not present or math.isnan(removed):
        answer, reason = "not decided", "the feature is not there to be removed"
    elif removed < LITTLE <= at_most:
        answer = "not decided"
        reason = f"between {removed:.0%} and {at_most:.0%} of it goes; not all its places are known"
    elif removed < LITTLE:
        answer, reason = "not supported", "little of it goes"
    elif beaten:
        answer = "not decided" if removed >= MOST else "not supported"
        much = "most of it goes, but also" if removed >= MOST else "a part of it goes, as"
        reason = f"{much} with {' and '.join(beaten)}"
    elif unsure:
        much = "most" if removed >= MOST else "a part"
        reason = f"{much} of it goes, more than with any null, but {' and '.join(unsure)} are "
        answer, reason = "not decided", reason + "too few, or too scattered, to rule out chance"
    elif removed >= MOST:
        answer, reason = "supported", "most of it goes, and no null removes as much"
    else:
        answer, reason = "not decided", "a part of it goes, more than with any null, but not most"
    return Finding(claim, removed, by_projection, nulls, untrained, present, answer, reason)
