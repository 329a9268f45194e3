"""The Hessian beside its two summands: outliers from G? bulk from E? (Papyan 2020, §5.1)

Each Krylov run serves several ends. One Lanczos run off the top eigenvectors of Hess gives the
density of its bulk and the end of it, which bounds what is left of Hess without the top
eigenvectors of G; one of E gives its density, and says whether it reaches the outliers. Hess − E
is G, whose spectrum and energy follow from S without a product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.alignment import Alignment, measure_alignment
from deepspec.attribution.bulk_energy import judge_bulk
from deepspec.attribution.gauss_newton_claims import OUTLIER_MARGIN
from deepspec.attribution.knockouts import ritz
from deepspec.attribution.measurement import Measurement
from deepspec.attribution.nulls import LEAST_SHARE, random_subspace
from deepspec.attribution.seeding import stream
from deepspec.attribution.spectra import (
    FORMED_UP_TO,
    Spectrum,
    dense_spectrum,
    exact_spectrum_of,
    lanczos_spectrum,
)
from deepspec.attribution.verdicts import Finding, judge
from deepspec.krylov import Eigenpairs, NotConverged, top_eigenpairs
from deepspec.operators import ColumnSpace, GaussNewton, Hessian, Residual, SymmetricOperator
from deepspec.problem import Problem

MATVECS_A_PAIR = 8
STEPS_BEYOND = 30
# Of the outliers' height: bounds that leave no more of it in doubt are good enough.
IN_DOUBT = 0.05


@dataclass(frozen=True, eq=False, kw_only=True)
class HessianSide:
    """What :func:`hessian_side` found.

    ``projected`` is the top of Hess off the top C eigenvectors of G; upper bounds where these tell
    all that is asked.
    """

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
    hessian = Hessian(problem)
    of_g = parameter_vectors(measured)
    # Near G's: the outliers of Hess are known to come from there, and if not the pairs say so.
    top = top_eigenpairs(
        hessian,
        min(count, problem.size),
        tol=settings.tolerance,
        start=of_g if of_g.shape[1] else None,
        seed=settings.seed,
        checkpoint=None if checkpoint is None else checkpoint / "pairs",
    )
    random = [
        _without_random(hessian, top, count, settings.seed, draw)
        for draw in range(settings.costly_draws)
    ]
    before = top.values.double().cpu()[:count]
    of_hessian = _spectrum(measured, "Hess", hessian, top, count)
    projected = _off(hessian, ColumnSpace(of_g), top, of_hessian, measured, edge)
    of_e, after = _without_g(measured, Residual(problem), edge)
    outliers = judge(
        "outliers of Hess",
        excess_removed(before, after[: len(before)], edge),
        excess_removed(before, projected, edge),
        {"a random subspace": _shares(before, random, edge)},
        present=bool((before > OUTLIER_MARGIN * edge).any()),
    )
    vectors = top.vectors[:, :count]
    seen = measured.array.rows.matmul(vectors)
    return HessianSide(
        spectra=(of_hessian, _spectrum_of_g(measured, problem), of_e),
        projected=projected,
        findings=(outliers, judge_bulk(measured, problem, hessian, vectors, seen)),
        alignment=measure_alignment(measured, problem, vectors, seen, of_g),
    )


def _off(
    hessian: Hessian,
    space: ColumnSpace,
    top: Eigenpairs,
    rest: Spectrum,
    measured: Measurement,
    edge: float,
) -> Float[Tensor, " k"]:
    """The largest eigenvalues of Hess off the range of P, which may end below the edge.

    With U Θ Uᵀ the top of Hess, and the rest of it at most b, each λ_i(P̄ Hess P̄), P̄ = I − P, is
    at most λ_i(P̄ U Θ Uᵀ P̄) + b: no product is needed. Where such bounds leave it open whether
    the outliers are gone, eigenpairs are converged as far as affordable.
    """
    count, settings = measured.places, measured.settings
    vectors, before = top.vectors[:, :count], top.values.double().cpu()[:count]
    kept = vectors - space @ vectors
    root = _root((kept.T @ kept).double().cpu())
    left = torch.linalg.eigvalsh(root @ (before[:, None] * root)).flip(0)
    # U are eigenvectors but for their residuals.
    beyond = max(rest.end, 0.0) + float(top.residuals[:count].double().norm())
    bounds = left.clamp_min(0.0) + beyond
    if not excess_removed(before, bounds, edge) < 1 - IN_DOUBT:
        return bounds
    remaining = hessian.project_out(space)
    pairs = _as_far_as_affordable(remaining, count, settings.tolerance, settings.seed, edge)
    return pairs.values.double().cpu()


def _root(gram: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(gram)
    return (vectors * values.clamp_min(0.0).sqrt()) @ vectors.T


def _without_g(
    measured: Measurement, residual: Residual, edge: float
) -> tuple[Spectrum, Float[Tensor, " k"]]:
    """E's spectrum, and its largest eigenvalues: bounds alone where it ends below the edge.

    Only where it reaches the outliers of Hess is anything of its top looked at one by one.
    """
    count, settings = measured.places, measured.settings
    nothing = torch.zeros(0, dtype=residual.dtype, device=residual.device)
    none = Eigenpairs.exact(nothing, nothing.new_zeros(residual.size, 0))
    spectrum = _spectrum(measured, "E", residual, none, count)
    if spectrum.method != "exact" and spectrum.end > edge:
        pairs = _as_far_as_affordable(residual, count, settings.tolerance, settings.seed, edge)
        spectrum = _spectrum(measured, "E", residual, pairs, len(pairs.values))
    after = torch.full((count,), spectrum.end, dtype=torch.float64)
    known = spectrum.top[:count]
    after[: len(known)] = known
    return spectrum, after.sort(descending=True).values


def _as_far_as_affordable(
    operator: SymmetricOperator, count: int, tol: float, seed: int, edge: float
) -> Eigenpairs:
    """Top eigenpairs inside a bulk, where gaps are small: the Ritz pairs after some products.

    Asked first is only whether it ends below the edge: then the Ritz values of a short run will
    do, since nothing of them counts.
    """
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


def parameter_vectors(measured: Measurement) -> Float[Tensor, "p k"]:
    """The top C eigenvectors of V: v_i = Dᵀ s_i/√λ_i."""
    count = measured.places
    values = measured.pairs.values[:count]
    kept = values > 1e-9 * values[0]
    rows = measured.array.rows
    vectors = rows.rmatmul(measured.pairs.vectors[:, :count][:, kept].to(rows.dtype))
    return vectors / values[kept].sqrt().to(vectors.dtype)


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
    pairs = Eigenpairs.exact(measured.pairs.values[:count], vectors)
    return _spectrum(measured, "G", GaussNewton(problem), pairs, count)


def _spectrum(
    measured: Measurement, name: str, operator: SymmetricOperator, pairs: Eigenpairs, count: int
) -> Spectrum:
    settings = measured.settings
    if operator.size <= FORMED_UP_TO:
        return dense_spectrum(name, operator, min(count, operator.size))
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
