"""The Hessian beside its two summands: outliers from G? bulk from E? (Papyan 2020, §5.1)

Each Krylov run serves several ends. One Lanczos run off the top eigenvectors of Hess gives the
density of its bulk; Hess − E is G, whose spectrum and energy follow from S without a product; and
whether E reaches the outliers takes the upper end of the run that gives its density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.attribution.alignment import Alignment, measure_alignment
from deepspec.attribution.gauss_newton_claims import OUTLIER_MARGIN
from deepspec.attribution.knockouts import LOOSE, ritz
from deepspec.attribution.measurement import Measurement
from deepspec.attribution.nulls import LEAST_SHARE, random_subspace, shuffled_labels
from deepspec.attribution.seeding import stream
from deepspec.attribution.spectra import (
    FORMED_UP_TO,
    Spectrum,
    dense_spectrum,
    exact_spectrum_of,
    lanczos_spectrum,
)
from deepspec.attribution.verdicts import Finding, judge
from deepspec.classifier.softmax import softmax_residual
from deepspec.engine.autodiff import LogitGradient
from deepspec.krylov import Eigenpairs, NotConverged, top_eigenpairs
from deepspec.krylov._results import exact_pairs
from deepspec.operators import ColumnSpace, GaussNewton, Hessian, Residual, SymmetricOperator
from deepspec.operators.hessian import SecondDerivative
from deepspec.problem import Problem

PROBES = 4
SPARE_PAIRS = 2
MATVECS_A_PAIR = 8
STEPS_BEYOND = 30


class RelabelledResidual(SecondDerivative):
    """E as it would be under other labels: Σ_i ⟨p_i − y_i', ∇²f_i⟩/n. For a null only."""

    def __init__(self, problem: Problem, labels: Int[Tensor, " n"]) -> None:
        super().__init__(problem)
        residual = softmax_residual(problem.probabilities, problem.one_hot(labels))
        object.__setattr__(self, "slopes", residual / problem.num_samples)

    slopes: Float[Tensor, "n C"]

    def logit_gradient(self, rows: slice) -> LogitGradient:
        fixed = self.slopes[rows].to(self.dtype)
        return lambda logits: fixed


@dataclass(frozen=True, eq=False, kw_only=True)
class HessianSide:
    """What :func:`hessian_side` found; ``projected``: the top of Hess ⊘ G's top C vectors."""

    spectra: tuple[Spectrum, ...]
    projected: Float[Tensor, " k"]
    findings: tuple[Finding, ...]
    alignment: Alignment


def excess_removed(before: Float[Tensor, " k"], after: Float[Tensor, " k"], edge: float) -> float:
    """1 − Σ(λ_i' − edge)₊/Σ(λ_i − edge) over the outliers, the λ_i above 1.25 times the edge.

    Outliers beyond the places at which both lists were measured do not count.

    >>> round(excess_removed(torch.tensor([5.0, 3.0, 1.0]), torch.tensor([2.0, 1.0]), 1.0), 3)
    0.833
    >>> excess_removed(torch.tensor([5.0, 4.0, 3.0]), torch.tensor([5.0, 4.0]), 1.0)
    0.0
    """
    before = before[: len(after)]
    there = before[before > OUTLIER_MARGIN * edge]
    height = float((there - edge).sum())
    if height <= 0:
        return math.nan
    left = float((after[: len(there)] - edge).clamp_min(0.0).sum())
    return min(1.0, max(0.0, 1 - left / height))


def hessian_side(
    measured: Measurement, problem: Problem, edge: float, checkpoint: Path | None = None
) -> HessianSide:
    """Hess, G and E in parameter space: spectra, knockouts, alignment.

    Parameters
    ----------
    measured
        G, measured.
    problem
        Whose G it is.
    edge
        The largest eigenvalue of G_within: where the bulk of G ends.
    checkpoint
        A folder for the long runs' own checkpoints.
    """
    settings, count = measured.settings, measured.places
    hessian, residual = Hessian(problem), Residual(problem)
    hessian.prepare(300)
    of_g = parameter_vectors(measured)
    # Near G's: the outliers of Hess are known to come from there, and if not the pairs say so.
    top = top_eigenpairs(
        hessian,
        min(count + SPARE_PAIRS, problem.size),
        tol=LOOSE,
        start=of_g if of_g.shape[1] else None,
        seed=settings.seed,
        checkpoint=None if checkpoint is None else checkpoint / "pairs",
    )
    random = [
        _without_random(hessian, top, count, settings.seed, draw)
        for draw in range(settings.costly_draws)
    ]
    before = top.values.double().cpu()[:count]
    remaining = hessian.project_out(ColumnSpace(of_g))
    projected = _reaches(remaining, count, settings.tolerance, settings.seed, edge)
    spectra = [_spectrum(measured, "Hess", hessian, top, count), _spectrum_of_g(measured, problem)]
    of_e = _pairs_of_e(measured, problem, residual, count, edge)
    spectra.append(_spectrum(measured, "E", residual, of_e, len(of_e.values)))
    there = bool((before > OUTLIER_MARGIN * edge).any())
    after = _with_edge(of_e.values.double().cpu(), len(before), spectra[-1])
    outliers = judge(
        "outliers of Hess",
        excess_removed(before, after, edge),
        excess_removed(before, projected, edge),
        {"a random subspace": _shares(before, random, edge)},
        present=there,
    )
    whole, without, relabelled = bulk_energies(
        measured, problem, hessian, top.vectors[:, : min(count, top.vectors.shape[1])]
    )
    bulk = judge(
        "bulk of Hess",
        max(0.0, 1 - without / whole) if whole > 0 else math.nan,
        math.nan,
        {"shuffled labels": (1 - relabelled / whole).clamp_min(0.0) if whole > 0 else relabelled},
        present=whole > 0,
    )
    alignment = measure_alignment(measured, problem, top.vectors[:, :count], of_g)
    return HessianSide(
        spectra=tuple(spectra),
        projected=projected,
        findings=(outliers, bulk),
        alignment=alignment,
    )


def _with_edge(pairs: Float[Tensor, " j"], count: int, spectrum: Spectrum) -> Float[Tensor, " k"]:
    """Upper ends for the first so many eigenvalues: known ones, then the largest node beyond."""
    beyond = spectrum.nodes.max() if len(spectrum.nodes) else torch.tensor(0.0)
    found = torch.full((count,), float(beyond), dtype=torch.float64)
    found[: min(count, len(pairs))] = pairs[:count]
    return found.sort(descending=True).values


def _reaches(
    operator: SymmetricOperator, count: int, tol: float, seed: int, edge: float
) -> Float[Tensor, " k"]:
    """The largest eigenvalues of an operator that may end below the edge.

    Asked first is only whether it does: then the Ritz values of a short run will do, since nothing
    of them counts. Where it reaches beyond the edge, pairs are converged as far as affordable.
    """
    return _as_far_as_affordable(operator, count, tol, seed, edge).values.double().cpu()


def _as_far_as_affordable(
    operator: SymmetricOperator, count: int, tol: float, seed: int, edge: float
) -> Eigenpairs:
    """Top eigenpairs inside a bulk, where gaps are small: the Ritz pairs after some products."""
    most = STEPS_BEYOND + count
    try:
        return top_eigenpairs(operator, count, tol=tol, seed=seed, max_matvecs=most)
    except NotConverged as unfinished:
        pairs = unfinished.pairs
    highest = float((pairs.values.double() + pairs.residuals.double()).max())
    if highest <= edge:
        return pairs
    try:
        return top_eigenpairs(
            operator,
            count,
            tol=tol,
            start=pairs.vectors,
            seed=seed,
            max_matvecs=MATVECS_A_PAIR * count,
        )
    except NotConverged as unfinished:
        return unfinished.pairs


def _pairs_of_e(
    measured: Measurement, problem: Problem, residual: Residual, count: int, edge: float
) -> Eigenpairs:
    """The top eigenpairs of E; none where E is rounding beside G, as for a linear net."""
    settings = measured.settings
    probe = torch.randn(problem.size, generator=stream(settings.seed, "size of E"))
    probe = probe.to(problem.device, problem.dtype)
    size = float((GaussNewton(problem) @ probe).norm())
    rounding = 100 * torch.finfo(problem.precision).eps * size
    if float((residual @ probe).norm()) <= rounding:
        nothing = probe.new_zeros(count)
        vectors = probe.new_zeros(problem.size, count)
        return Eigenpairs(values=nothing, vectors=vectors, residuals=nothing, matvecs=1)
    residual.prepare(300)
    return _as_far_as_affordable(residual, count, settings.tolerance, settings.seed, edge)


def parameter_vectors(measured: Measurement) -> Float[Tensor, "p k"]:
    """The top C eigenvectors of V: v_i = Dᵀ s_i/√λ_i."""
    count = measured.places
    values = measured.pairs.values[:count]
    kept = values > 1e-9 * values[0]
    rows = measured.array.rows
    vectors = rows.rmatmul(measured.pairs.vectors[:, :count][:, kept].to(rows.dtype))
    return vectors / values[kept].sqrt().to(vectors.dtype)


def bulk_energies(
    measured: Measurement,
    problem: Problem,
    hessian: SymmetricOperator,
    outliers: Float[Tensor, "p k"],
) -> tuple[float, float, Float[Tensor, " b"]]:
    """‖P A P‖²_F off the top C eigenvectors of Hess, by the same probes for every A.

    For A = Hess, for A = Hess − E = G, and for Hess − E' with E' under shuffled labels. Where S
    is formed the second is exact, and what the probes get wrong of it is taken off the others too.
    """
    settings = measured.settings
    space = ColumnSpace(outliers)
    signs = torch.randint(0, 2, (problem.size, PROBES), generator=stream(settings.seed, "energies"))
    probes = (2 * signs - 1).to(problem.device, problem.dtype)
    probes = probes - space @ probes

    def energy(images: Tensor) -> float:
        return float((images - space @ images).double().square().sum()) / PROBES

    of_hessian = hessian @ probes
    of_g = energy(GaussNewton(problem) @ probes)
    exact = _energy_off(measured, outliers)
    correction = exact - of_g if exact is not None else 0.0
    found = []
    for draw in range(settings.costly_draws):
        labels = shuffled_labels(problem.labels, settings.seed, draw)
        found.append(energy(of_hessian - RelabelledResidual(problem, labels) @ probes))
    nulls = torch.tensor(found, dtype=torch.float64)
    whole = energy(of_hessian)
    if whole + correction <= 0:
        correction = 0.0
    return whole + correction, of_g + correction, (nulls + correction).clamp_min(0.0)


def _energy_off(measured: Measurement, outliers: Float[Tensor, "p k"]) -> float | None:
    """‖P G P‖²_F off orthonormal columns U: tr G² − 2 tr UᵀG²U + tr (UᵀG U)²."""
    if not measured.exact:
        return None
    rows = measured.array.rows
    seen = rows.matmul(outliers).double()  # D U
    inner = seen.T @ seen
    squares = float((seen * measured.gram.times(seen)).sum())
    whole = float(measured.gram.eigenvalues.square().sum())
    return max(0.0, whole - 2 * squares + float(inner.square().sum()))


def _spectrum_of_g(measured: Measurement, problem: Problem) -> Spectrum:
    """G in parameter space: S's eigenvalues, and as many zeros as make p of them."""
    count = measured.places
    if measured.exact:
        values = measured.gram.eigenvalues
        values = values[values > measured.gram.rounding][: problem.size].cpu()
        full = exact_spectrum_of("G", values, count)
        zeros = problem.size - len(values)
        nodes = torch.cat([full.nodes, full.nodes.new_zeros(1)])
        counts = torch.cat([full.counts, full.counts.new_tensor([float(zeros)])])
        if len(values) < count:
            return full
        return replace(full, nodes=nodes, counts=counts)
    vectors = parameter_vectors(measured)
    count = min(count, vectors.shape[1])
    pairs = exact_pairs(measured.pairs.values[:count], vectors)
    return _spectrum(measured, "G", GaussNewton(problem), pairs, count)


def _spectrum(
    measured: Measurement, name: str, operator: SymmetricOperator, pairs: Eigenpairs, count: int
) -> Spectrum:
    settings = measured.settings
    if operator.size <= FORMED_UP_TO:
        return dense_spectrum(name, operator, min(count, len(pairs.values)))
    return lanczos_spectrum(
        name,
        operator,
        pairs.values[:count],
        pairs.vectors[:, :count],
        steps=settings.steps,
        probes=settings.probes,
        seed=settings.seed,
        reorthogonalize=False,
    )


def _without_random(
    hessian: SymmetricOperator, top: Eigenpairs, count: int, seed: int, draw: int
) -> Float[Tensor, " k"]:
    """Lower bounds on the top eigenvalues of Hess ⊘ (a random subspace of rank C)."""
    rank = min(count, hessian.size - 1)
    if rank < LEAST_SHARE * hessian.size:  # then it can hardly differ from its mean
        return (1 - rank / hessian.size) * top.values[:count].double().cpu()
    generator = stream(seed, "random subspace of Hess", draw)
    basis = random_subspace(hessian.size, rank, top.vectors, generator)
    inside = basis.T @ top.vectors
    kept = top.vectors - basis @ inside
    image = top.vectors * top.values - (hessian @ basis) @ inside
    return ritz(kept.double(), image.double(), count)


def _shares(
    before: Float[Tensor, " k"], draws: list[Float[Tensor, " k"]], edge: float
) -> Float[Tensor, " b"]:
    shares = [excess_removed(before, after, edge) for after in draws]
    return torch.tensor([0.0 if math.isnan(v) else v for v in shares], dtype=torch.float64)
