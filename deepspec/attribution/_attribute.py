"""The whole attribution of a trained classifier."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from rich.console import Console

from deepspec.attribution.decomposition import (
    Decomposition,
    decompose,
    identity_residual,
    mean_gram,
    total_trace,
)
from deepspec.attribution.gauss_newton_claims import above, judge_claims, light_shares
from deepspec.attribution.gauss_newton_measurement import (
    REMOVABLE,
    Measurement,
    Settings,
    knock_out,
    measure,
)
from deepspec.attribution.hessian_claims import hessian_side
from deepspec.attribution.predicted_outliers import PredictedOutliers, predict_outliers
from deepspec.attribution.result import Attribution, versions
from deepspec.attribution.spectra import Spectrum, spectrum_of
from deepspec.attribution.split import KnockoutRecord, MeansMap, SplitAttribution
from deepspec.class_structure.parts import Means, cell_frame, named_parts, within_class
from deepspec.class_structure.two_way import TwoWayLayout, two_way_layout
from deepspec.class_structure.weights import Convention
from deepspec.operators import ColumnSpace
from deepspec.operators.on_problem import require_problem
from deepspec.problem import Problem

LARGE = 2 * 10**8


def attribute(
    problem: Problem,
    *,
    test: Problem | None = None,
    untrained: Problem | None = None,
    convention: Convention = "jmlr2020",
    seed: int = 0,
    draws: int | None = None,
    steps: int | None = None,
    probes: int = 1,
    exact_up_to: int = 2000,
) -> Attribution:
    """Which part of the spectrum has which cause, with nulls.

    Takes G = Σ w_{i,c'} g_{i,c'} g_{i,c'}ᵀ apart into class means, deviations of cross-class means,
    scatter within and own-class means ([002] eq. 6.4; [000] eq. 28), knocks each part out by
    subtraction and by projection ([002] Definitions 3.1–3.3), and judges the papers' six claims
    beside nulls (:func:`deepspec.attribution.verdicts.judge` states the rule): a random subspace
    of the same rank, shuffled labels, means over random groups of samples, and the untrained net.

    Parameters
    ----------
    problem
        The trained net and its training data.
    test
        The same net on other data, attributed likewise.
    untrained
        The untrained net on the training data, to show beside it.
    convention
        "jmlr2020" ([002]) or "icml2019" ([000]) for the knockouts; the decomposition is given in
        both.
    seed
        All randomness follows from it.
    draws
        Of each null; by default 19, or 4 where n · p is above 2 · 10⁸.
    steps, probes
        Lanczos steps and probes of each density; by default 100, or 32 where n · p is large.
    exact_up_to
        Where n · C is at most this, the spectra of G and of all its knockouts are exact.

    Raises
    ------
    ValueError
        If the problems do not fit together, ``draws`` is below 2 or ``steps`` below 1, or the net
        is the same for every parameter (no gradient at all).

    >>> import torch
    >>> model = torch.nn.Linear(3, 3, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> data = torch.eye(3, dtype=torch.float64).repeat(4, 1), torch.arange(3).repeat(4)
    >>> found = attribute(Problem(model, data), draws=3)
    >>> round(found.train.trace, 6), found.train.exact
    (1.333333, True)
    """
    started = time.perf_counter()
    require_problem(problem)
    large = problem.size * problem.num_samples > LARGE
    chosen = Settings(
        convention,
        seed,
        (4 if large else 19) if draws is None else draws,
        (32 if large else 100) if steps is None else steps,
        probes,
        exact_up_to,
        10 if large else 30,
        1e-2 if large else 1e-3,
    )
    _check(problem, chosen, test=test, untrained=untrained)
    before: dict[str, float] = {}
    if untrained is not None:
        with _Clock("untrained net").stage("the same, for comparison"):
            before = _untrained(untrained, chosen)
    found = {"train": _split(problem, chosen, "train", before)}
    if test is not None:
        found["test"] = _split(test, chosen, "test", {})
    return Attribution(
        problem=problem.fingerprint(),
        num_classes=problem.num_classes,
        parameters=problem.size,
        settings=chosen,
        splits=found,
        has_untrained=untrained is not None,
        plan=dict(problem.plan),
        versions=versions(),
        seconds=time.perf_counter() - started,
    )


def _check(
    problem: Problem, settings: Settings, *, test: Problem | None, untrained: Problem | None
) -> None:
    for given in filter(None, (test, untrained)):
        require_problem(given)
    for name in ("seed", "draws", "steps", "probes", "exact_up_to", "mini_bulk"):
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"expected {name} as a whole number of at least 0, got {value!r}")
    for name, other in (("test", test), ("untrained", untrained)):
        if other is not None and (other.size, other.num_classes) != (
            problem.size,
            problem.num_classes,
        ):
            raise ValueError(
                f"expected the {name} problem to have the same net: {problem.size} parameters and "
                f"{problem.num_classes} classes; got {other.size} and {other.num_classes}"
            )
    if settings.draws < 2:
        raise ValueError(f"expected at least 2 draws of each null, got {settings.draws}")
    if settings.steps < 1 or settings.probes < 1:
        raise ValueError(
            f"expected at least 1 step and 1 probe, got {settings.steps} and {settings.probes}"
        )


def _untrained(problem: Problem, settings: Settings) -> dict[str, float]:
    """What each cause removes in the untrained net."""
    measured = measure(problem, settings)
    total = total_trace(measured.operator, settings.seed).value
    shares = light_shares(measured, total - float(measured.pairs.values[: measured.count].sum()))
    problem.engine.cache.release()
    return shares


def _split(
    problem: Problem, settings: Settings, name: str, untrained: dict[str, float]
) -> SplitAttribution:
    """One split: G in the coordinates of its gradients, then Hess and E."""
    clock = _Clock(name)
    largest = float(problem.residuals.abs().max())
    precision = torch.finfo(problem.dtype)
    if largest < (precision.tiny / precision.eps) ** 0.5:
        wider = "" if problem.dtype == torch.float64 else "compute in float64, or "
        raise ValueError(
            f"expected probabilities that differ from the labels, but on the {name} data none "
            f"differs by more than {largest:.1e}: the fit is perfect, and what is left of the "
            f"Hessian underflows in {problem.dtype}; {wider}train less"
        )
    with clock.stage("eigenpairs and means of G"):
        measured = measure(problem, settings)
    if float(measured.pairs.values[0]) <= 0:
        raise ValueError(
            "expected logits that depend on the parameters, but G is zero: no probability moves "
            "with any parameter; check that the parameters in use are the ones selected"
        )
    with clock.stage("decompositions"):
        total = total_trace(measured.operator, settings.seed)
        decompositions = _decompositions(measured, total.value)
    # Where classes have no scatter there is no bulk; what rounding leaves is none either.
    rounding = 1e3 * torch.finfo(problem.dtype).eps * float(measured.pairs.values[0])
    edge = max(float(decompositions[0].part("within_class").top[0]), rounding)
    measured = replace(measured, outliers=above(measured.pairs.values, edge))
    top_sum = float(measured.pairs.values[: measured.count].sum())
    with clock.stage("knockouts"):
        knockouts = {name: knock_out(measured, name, thorough=True) for name in REMOVABLE}
        whole = _whole_spectrum(measured)
    with clock.stage("nulls"):
        findings = judge_claims(measured, knockouts, total.value - top_sum, edge, untrained)
    with clock.stage("predicted outliers"):
        predicted = _predicted(measured, decompositions[0])
    with clock.stage("Hess and E"):
        hessian = hessian_side(measured, edge)
    problem.engine.cache.release()
    spectra = [whole] + [k.spectrum for k in knockouts.values() if k.spectrum is not None]
    return SplitAttribution(
        samples=problem.num_samples,
        loss=problem.loss,
        error_rate=problem.error_rate,
        class_counts=problem.class_counts.tolist(),
        top=measured.pairs.values.cpu(),
        edge=edge,
        trace=total.value,
        trace_error=total.standard_error,
        decompositions=decompositions,
        knockouts=tuple(
            KnockoutRecord(k.part, k.rank, k.subtracted, k.projected) for k in knockouts.values()
        ),
        spectra=tuple(spectra),
        hessian_spectra=hessian.spectra,
        hessian_projected=hessian.projected,
        findings=findings + hessian.findings,
        alignment=hessian.alignment,
        predicted=predicted,
        layout=_layout(measured),
        means=_means(measured),
        exact=measured.exact,
        seconds=clock.laps,
    )


def _whole_spectrum(measured: Measurement) -> Spectrum:
    count, settings = measured.count, measured.settings
    return spectrum_of(
        "G",
        measured.operator,
        measured.pairs.values[:count].cpu(),
        measured.pairs.vectors[:, :count],
        steps=settings.steps,
        probes=settings.probes,
        seed=settings.seed,
        parts={**named_parts(measured.frame), "within_class": within_class(measured.frame)},
    )


def _decompositions(measured: Measurement, total: float) -> tuple[Decomposition, Decomposition]:
    """In the chosen convention, then in the other."""
    settings, count = measured.settings, measured.count
    other: Convention = "icml2019" if settings.convention == "jmlr2020" else "jmlr2020"
    found = []
    for convention in (settings.convention, other):
        means = measured.means
        if convention == other:
            means = mean_gram(measured.operator, cell_frame(measured.problem, other))
        residual = identity_residual(measured.problem, convention, settings.seed)
        vectors = measured.pairs.vectors[:, :count]
        start = vectors - Means(means.frame) @ vectors
        found.append(
            decompose(
                measured.operator, means, convention, total, count, residual, start, settings.seed
            )
        )
    return found[0], found[1]


def _predicted(measured: Measurement, decomposition: Decomposition) -> PredictedOutliers:
    means = measured.means
    space = Means(measured.frame) if means.complete else ColumnSpace(means.basis)
    return predict_outliers(
        measured.operator,
        measured.operator.project_out(space),
        means.basis,
        means.image,
        measured.pairs.values[: measured.count],
        decomposition.part("between_class").top,
        float(decomposition.part("within_class").top[0]),
    )


def _layout(measured: Measurement) -> TwoWayLayout | None:
    means, frame = measured.means, measured.frame
    if not means.complete:
        return None
    return two_way_layout(means.gram, frame.weights[frame.occupied], frame.cells())


def _means(measured: Measurement) -> MeansMap | None:
    """⟨g, g⟩ of the plain means: the weights taken out of the Gram matrix."""
    means, frame = measured.means, measured.frame
    if not means.complete:
        return None
    weights = frame.weights[frame.occupied]
    root = weights.sqrt()
    cells = [[c, other] for c, other in frame.cells()]
    return MeansMap(cells, (means.gram / root[:, None] / root).cpu(), weights.cpu())


class _Clock:
    """Seconds of each stage; where stderr is a terminal, it also says which one begins."""

    def __init__(self, split: str) -> None:
        self.laps: dict[str, float] = {}
        self._split = split
        self._console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done within."""
        if self._console.is_terminal:
            self._console.print(f"[dim]attribution ({self._split}):[/dim] {name}")
        begin = time.perf_counter()
        yield
        self.laps[name] = round(time.perf_counter() - begin, 3)
