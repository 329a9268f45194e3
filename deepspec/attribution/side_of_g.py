"""Everything about the second moment of one array: decomposition, knockouts, verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.decomposition import (
    Decomposition,
    decompose,
    measure_means,
    total_trace,
)
from deepspec.attribution.gauss_newton_claims import above, judge_claims
from deepspec.attribution.knockouts import Knockout
from deepspec.attribution.measurement import Measurement, with_outliers
from deepspec.attribution.mini_bulk import MiniBulk
from deepspec.attribution.predicted_outliers import PredictedOutliers, predict_outliers
from deepspec.attribution.removal import knock_out
from deepspec.attribution.spectra import (
    Spectrum,
    exact_spectrum_of,
    lanczos_spectrum,
)
from deepspec.attribution.split import MeansMap
from deepspec.attribution.verdicts import Finding
from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.cells import Convention
from deepspec.class_structure.parts import PARTS, CellMeans, Part
from deepspec.class_structure.rows import GradientRows, cells_of
from deepspec.class_structure.two_way import TwoWayLayout, two_way_layout


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class GaussNewtonSide:
    """What :func:`gauss_newton_side` found; see :class:`~deepspec.attribution.SplitAttribution`."""

    top: Float[Tensor, " k"]
    edge: float
    trace: float
    trace_error: float
    decompositions: tuple[Decomposition, ...]
    knockouts: tuple[Knockout, ...]
    spectra: tuple[Spectrum, ...]
    findings: tuple[Finding, ...]
    predicted: PredictedOutliers
    mini_bulk: MiniBulk | None
    layout: TwoWayLayout | None
    means: MeansMap | None
    exact: bool


class NothingThere(ValueError):
    """A second moment that is zero."""


def gauss_newton_side(measured: Measurement, untrained: dict[str, float]) -> GaussNewtonSide:
    """One array's second moment taken apart, with nulls and verdicts.

    Raises
    ------
    NothingThere
        If it is zero.
    """
    if float(measured.pairs.values[0]) <= 0:
        raise NothingThere(
            f"expected vectors that are not all zero, but {measured.array.rows.symbol} is zero: "
            "no probability moves with any parameter; check that the parameters in use are the "
            "ones selected"
        )
    total = total_trace(measured.operator, measured.settings.seed)
    decompositions = _decompositions(measured, total.value)
    # Where classes have no scatter there is no bulk; what rounding leaves is none either.
    eps = torch.finfo(measured.array.rows.dtype).eps
    rounding = 1e3 * eps * float(measured.pairs.values[0])
    edge = max(float(decompositions[0].part("within_class").top[0]), rounding)
    measured = with_outliers(measured, above(measured.pairs.values, edge))
    top_sum = float(measured.pairs.values[: measured.count].sum())
    knockouts = {name: knock_out(measured, name, thorough=True) for name in PARTS}
    findings = judge_claims(measured, knockouts, total.value - top_sum, edge, untrained)
    spectra = [_whole_spectrum(measured)]
    spectra += [left for _, left in knockouts.values() if left is not None]
    return GaussNewtonSide(
        top=measured.pairs.values.cpu(),
        edge=edge,
        trace=total.value,
        trace_error=total.standard_error,
        decompositions=decompositions,
        knockouts=tuple(knockout for knockout, _ in knockouts.values()),
        spectra=tuple(spectra),
        findings=findings,
        predicted=_predicted(measured, decompositions[0]),
        mini_bulk=measured.mini_bulk,
        layout=_layout(measured),
        means=_means(measured),
        exact=measured.exact,
    )


def _whole_spectrum(measured: Measurement) -> Spectrum:
    count, settings, symbol = measured.count, measured.settings, measured.array.rows.symbol
    parts: dict[str, Part] = {name: measured.part(name) for name in PARTS if name != "global_mean"}
    if measured.exact:
        values, vectors = measured.gram.eigenpairs
        shares = {name: part.shares(vectors) for name, part in parts.items()}
        return exact_spectrum_of(symbol, values, count, shares)
    return lanczos_spectrum(
        symbol,
        measured.operator,
        measured.pairs.values[:count].cpu(),
        measured.pairs.vectors[:, :count],
        steps=settings.steps,
        probes=settings.probes,
        seed=settings.seed,
        reorthogonalize=True,
        parts=parts,
    )


def _decompositions(measured: Measurement, total: float) -> tuple[Decomposition, ...]:
    """In the chosen convention; of gradients then in the other one, too."""
    settings, rows = measured.settings, measured.array.rows
    wanted: list[tuple[str, ClassArray]] = [(settings.convention, measured.array)]
    if isinstance(rows, GradientRows):
        other: Convention = "icml2019" if settings.convention == "jmlr2020" else "jmlr2020"
        cells = cells_of(rows.problem, other, measured.array.cells.grouping)
        wanted.append((other, ClassArray.of(rows, cells)))
    found = []
    for convention, array in wanted:
        means = measured.means
        if array is not measured.array:
            means = measure_means(array, measured.operator)
        vectors = measured.pairs.vectors[:, : measured.count].to(array.cells.dtype)
        start = vectors - CellMeans(array.cells) @ vectors
        found.append(
            decompose(
                measured.operator,
                means,
                convention,
                total,
                measured.count,
                start,
                settings.seed,
            )
        )
    return tuple(found)


def _predicted(measured: Measurement, decomposition: Decomposition) -> PredictedOutliers:
    means = measured.means
    return predict_outliers(
        measured.operator,
        measured.operator.project_out(means.space),
        means.basis,
        means.image,
        measured.pairs.values[: measured.count],
        decomposition.part("between_class").top,
        float(decomposition.part("within_class").top[0]),
    )


def _layout(measured: Measurement) -> TwoWayLayout | None:
    cells = measured.array.cells
    if not measured.means.complete or not bool(cells.own.any()) or cells.grouping is not None:
        return None
    places = [(c, other) for c, other in cells.places.tolist()]
    return two_way_layout(measured.means.gram, cells.weights[cells.occupied], places)


def _means(measured: Measurement) -> MeansMap | None:
    """⟨m, m⟩ of the plain means: the weights taken out of the Gram matrix."""
    means, cells = measured.means, measured.array.cells
    if not means.complete or cells.grouping is not None:
        return None
    weights = cells.weights[cells.occupied]
    root = weights.sqrt()
    gram = means.gram / root[:, None] / root
    return MeansMap(cells=cells.places.tolist(), gram=gram.cpu(), weights=weights.cpu())
