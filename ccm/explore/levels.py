"""The levels of one view: what the table, the CSV and the picture of the spectrum show."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from ccm.bayes import bayes_spectrum
from ccm.explore.state import ViewState
from ccm.finite_sample import GROUPS, FiniteSampleLaw, finite_sample_law
from ccm.symmetric import multiplicities, symmetric_spectrum

LEVELS = {
    "1": "symmetric, N = ∞",
    "2": "symmetric, this N",
    "3": "Bayes classifier, N = ∞",
    "4": "simulated",
}
CURVE_POINTS = 300  # of each interval of the bulk


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of levels.

    ``eigenvalue`` is None for a bulk that is an interval from ``low`` to ``high``, and for a
    group that the bulk has absorbed. ``deviation`` is the standard deviation over simulated
    draws.
    """

    level: str
    group: str
    eigenvalue: float | None = None
    low: float | None = None
    high: float | None = None
    multiplicity: int | None = None
    detached_from_snr: float | None = None
    deviation: float | None = None


def level_rows(state: ViewState, alpha: float) -> list[Row]:
    """Levels 1 to 3 of a view, α given as a number.

    Level 2 has a row for each group (without an eigenvalue where the bulk has absorbed it) and
    one for each interval of the bulk, which counts the absorbed groups' eigenvalues too (two
    intervals of a split bulk carry no multiplicity).

    Raises
    ------
    TypeError, ValueError
        If α is not a number from 0 to 1 - 1/C.

    Examples
    --------
    >>> rows = level_rows(ViewState(dim=6, num_classes=3, snr=2.0), alpha=0.5)
    >>> [(row.group, row.eigenvalue, row.multiplicity) for row in rows if row.level == "1"][:2]
    [('outliers', 0.8125, 3), ('mini-bulk', 0.6458333333333333, 3)]
    """
    rows = [
        Row(level="1", group=lv.label, eigenvalue=lv.value, multiplicity=lv.multiplicity)
        for lv in symmetric_spectrum(state.model, alpha).levels
    ]
    rows += _finite_sample_rows(finite_sample_law(state.model, alpha, state.per_class))
    rows += [
        Row(level="3", group=lv.label, eigenvalue=lv.value, multiplicity=lv.multiplicity)
        for lv in bayes_spectrum(state.model).levels
    ]
    return rows


def groups_of(num_classes: int) -> tuple[str, ...]:
    """The groups beside the bulk: two classes have no mini-bulk.

    Examples
    --------
    >>> groups_of(2)
    ('outliers',)
    """
    return GROUPS[: 1 if num_classes == 2 else 2]


def _finite_sample_rows(law: FiniteSampleLaw) -> list[Row]:
    """Level 2: min(D, NC)(C-1) eigenvalues are not zero, and what is not detached is bulk."""
    D, C = law.model.dim, law.model.num_classes
    counts = multiplicities(D, C)
    rows, detached = [], dict.fromkeys(GROUPS, 0)
    for label in groups_of(C):
        location, critical = law.location(label), law.critical_snr(label)
        if location is not None:
            detached[label] = counts[label]
        rows.append(
            Row(
                level="2",
                group=label,
                eigenvalue=location,
                multiplicity=counts[label] if location is not None else 0,
                detached_from_snr=critical if math.isfinite(critical) else None,
            )
        )
    nonzero = min(D, law.per_class * C) * (C - 1)
    held = nonzero - sum(detached.values())
    for low, high in law.edges[::-1].tolist():
        count = held if len(law.edges) == 1 else None
        rows.append(Row(level="2", group="bulk", low=low, high=high, multiplicity=count))
    zeros = D * C - nonzero if len(law.edges) else D * C
    rows.append(Row(level="2", group="null", eigenvalue=0.0, multiplicity=zeros))
    return rows


def to_csv(rows: Iterable[Row], state: ViewState, alpha: float) -> str:
    """The table as CSV, each line with the view it belongs to; numbers in exact form.

    Examples
    --------
    >>> state = ViewState(dim=6, num_classes=3, snr=2.0)
    >>> to_csv(level_rows(state, 0.5), state, 0.5).splitlines()[1]
    '1,outliers,0.8125,,,3,,,6,3,2.0,100,0.5,0'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(Row.__dataclass_fields__)
    writer.writerow([*names, "dim", "num_classes", "snr", "per_class", "alpha", "seed"])
    view = (state.dim, state.num_classes, state.snr, state.per_class, alpha, state.seed)
    for row in rows:
        numbers = ("" if value is None else value for value in asdict(row).values())
        writer.writerow([*numbers, *view])
    return text.getvalue()


@dataclass(frozen=True, kw_only=True)
class BulkCurve:
    """The bulk as a density on a logarithmic axis.

    ``share`` is the share of the D(C-1) eigenvalues that are not zero by Uc 1 = 0, per decade of
    x, so that areas on the logarithmic axis are shares.
    """

    x: Float[np.ndarray, " m"]
    share: Float[np.ndarray, " m"]


def bulk_curves(law: FiniteSampleLaw) -> tuple[BulkCurve, ...]:
    """The law's bulk, one curve an interval; none for α = 0.

    Examples
    --------
    >>> from ccm import CanonicalClassificationModel
    >>> law = finite_sample_law(CanonicalClassificationModel(50, 2, 0.0), 0.5, per_class=50)
    >>> curve, = bulk_curves(law)
    >>> round(float(np.trapezoid(curve.share, np.log10(curve.x))), 3)
    1.0
    """
    curves = []
    for low, high in law.edges.tolist():
        floor = max(low, 1e-4 * high)  # with as many samples as coordinates the bulk reaches zero
        turn = (1 - np.cos(np.linspace(0, np.pi, CURVE_POINTS))) / 2
        x = floor * (high / floor) ** turn
        curves.append(BulkCurve(x=x, share=law.density(x) * x * math.log(10)))
    return tuple(curves)
