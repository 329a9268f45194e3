"""The Hessian beside its two summands: outliers from G? bulk from E? ([002] §5.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.attribution.alignment import Alignment, principal_cosines, share_inside
from deepspec.attribution.gauss_newton_claims import CLEAR
from deepspec.attribution.gauss_newton_measurement import Measurement
from deepspec.attribution.knockouts import LOOSE, ritz
from deepspec.attribution.nulls import LEAST_SHARE, random_subspace, shuffled_labels
from deepspec.attribution.spectra import Spectrum, estimated_spectrum
from deepspec.attribution.verdicts import Finding, judge
from deepspec.class_structure.parts import BetweenClass, CrossClass
from deepspec.classifier.softmax import softmax_residual
from deepspec.engine.autodiff import LogitGradient
from deepspec.krylov import Eigenpairs, NotConverged, top_eigenpairs
from deepspec.operators import ColumnSpace, GaussNewton, Hessian, Residual, SymmetricOperator
from deepspec.operators.hessian import SecondDerivative
from deepspec.problem import Problem

PROBES = 8
PRODUCTS_A_PAIR = 8


class RelabelledResidual(SecondDerivative):
    """E as it would be under other labels: Σ_i ⟨p_i − y_i', ∇²f_i⟩/n. For a null only."""

    def __init__(self, problem: Problem, labels: Int[Tensor, " n"]) -> None:
        super().__init__(problem)
        slopes = (
            softmax_residual(problem.probabilities, problem.one_hot(labels)) / problem.num_samples
        )
        object.__setattr__(self, "slopes", slopes)

    slopes: Float[Tensor, "n C"]

    def logit_gradient(self, rows: slice) -> LogitGradient:
        fixed = self.slopes[rows].to(self.dtype)
        return lambda logits: fixed


@dataclass(frozen=True, eq=False)
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
    there = before[before > CLEAR * edge]
    height = float((there - edge).sum())
    if height <= 0:
        return math.nan
    left = float((after[: len(there)] - edge).clamp_min(0.0).sum())
    return min(1.0, max(0.0, 1 - left / height))


def hessian_side(measured: Measurement, edge: float) -> HessianSide:
    """Hess, G and E in parameter space: spectra, knockouts, alignment.

    Parameters
    ----------
    measured
        G, measured.
    edge
        The largest eigenvalue of G_within: where the bulk of G ends.
    """
    problem, settings, count = measured.problem, measured.settings, measured.places
    hessian, residual = Hessian(problem), Residual(problem)
    hessian.prepare(1000)
    top = top_eigenpairs(hessian, min(2 * count, problem.size), tol=LOOSE, seed=settings.seed)
    vectors_of_g = parameter_vectors(measured)
    remaining = hessian.project_out(ColumnSpace(vectors_of_g))
    projected = _as_far_as_affordable(measured, remaining, count).values
    random = [
        _without_random(hessian, top, count, settings.seed, draw)
        for draw in range(settings.costly_draws)
    ]
    spectra = [_spectrum(measured, "Hess", hessian, top, count)]
    energies = bulk_energies(measured, hessian, residual, top.vectors[:, :count])
    alignment = _alignment(measured, top.vectors[:, :count], vectors_of_g)
    gauss = GaussNewton(problem)
    pairs = Eigenpairs(measured.pairs.values[:count], vectors_of_g, torch.zeros(count), 0)
    spectra.append(_spectrum(measured, "G", gauss, pairs, min(count, vectors_of_g.shape[1])))
    of_e = _pairs_of_e(measured, residual, gauss, count)
    spectra.append(_spectrum(measured, "E", residual, of_e, count))
    before, after = top.values.double().cpu(), of_e.values.double().cpu()
    there = bool((before[:count] > CLEAR * edge).any())
    outliers = judge(
        "outliers of Hess",
        excess_removed(before, after, edge),
        excess_removed(before, projected.double().cpu(), edge),
        {"a random subspace": _shares(before, random, edge)},
        present=there,
    )
    whole, without, relabelled = energies
    bulk = judge(
        "bulk of Hess",
        max(0.0, 1 - without / whole) if whole > 0 else math.nan,
        math.nan,
        {"shuffled labels": (1 - relabelled / whole).clamp_min(0.0) if whole > 0 else relabelled},
        present=whole > 0,
    )
    return HessianSide(tuple(spectra), projected.double().cpu(), (outliers, bulk), alignment)


def _pairs_of_e(
    measured: Measurement, residual: Residual, gauss: GaussNewton, count: int
) -> Eigenpairs:
    """The top eigenpairs of E; none where E is rounding beside G, as for a linear net."""
    problem = measured.problem
    generator = torch.Generator().manual_seed(measured.settings.seed)
    probe = torch.randn(problem.size, generator=generator).to(problem.device, problem.dtype)
    rounding = 100 * torch.finfo(problem.dtype).eps * float((gauss @ probe).norm())
    if float((residual @ probe).norm()) <= rounding:
        nothing = probe.new_zeros(count)
        return Eigenpairs(nothing, probe.new_zeros(problem.size, count), nothing, 1)
    residual.prepare(1000)
    return _as_far_as_affordable(measured, residual, count)


def _as_far_as_affordable(
    measured: Measurement, operator: SymmetricOperator, count: int
) -> Eigenpairs:
    """Top eigenpairs inside a bulk, where gaps are small: the Ritz pairs after some products."""
    settings = measured.settings
    most = PRODUCTS_A_PAIR * count + 40
    try:
        return top_eigenpairs(
            operator, count, tol=settings.tolerance, seed=settings.seed, max_products=most
        )
    except NotConverged as unfinished:
        return unfinished.pairs


def parameter_vectors(measured: Measurement) -> Float[Tensor, "p k"]:
    """The top C eigenvectors of G: v_i = Dᵀ s_i/√λ_i."""
    count = measured.places
    values = measured.pairs.values[:count]
    kept = values > 1e-9 * values[0]
    vectors = measured.gram.columns_times(measured.pairs.vectors[:, :count][:, kept])
    return vectors / values[kept].sqrt().to(vectors.dtype)


def bulk_energies(
    measured: Measurement,
    hessian: SymmetricOperator,
    residual: SymmetricOperator,
    outliers: Float[Tensor, "p k"],
) -> tuple[float, float, Float[Tensor, " b"]]:
    """‖P A P‖²_F off the top C eigenvectors of Hess, by the same probes for every A.

    For A = Hess, for A = Hess − E, and for Hess − E' with E' under shuffled labels.
    """
    problem, settings = measured.problem, measured.settings
    space = ColumnSpace(outliers)
    generator = torch.Generator().manual_seed(31 + settings.seed)
    signs = torch.randint(0, 2, (problem.size, PROBES), generator=generator) * 2 - 1
    probes = signs.to(problem.device, problem.dtype)
    probes = probes - space @ probes

    def energy(images: Tensor) -> float:
        return float((images - space @ images).double().square().sum()) / PROBES

    of_hessian = hessian @ probes
    found = []
    for draw in range(settings.costly_draws):
        labels = shuffled_labels(problem, settings.seed, draw)
        found.append(energy(of_hessian - RelabelledResidual(problem, labels) @ probes))
    nulls = torch.tensor(found, dtype=torch.float64)
    return energy(of_hessian), energy(of_hessian - residual @ probes), nulls


def _spectrum(
    measured: Measurement, name: str, operator: SymmetricOperator, pairs: Eigenpairs, count: int
) -> Spectrum:
    settings = measured.settings
    return estimated_spectrum(
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
    basis = random_subspace(hessian.size, rank, top.vectors, 15_485_863 * (seed + 1) + draw)
    inside = basis.T @ top.vectors
    kept = top.vectors - basis @ inside
    image = top.vectors * top.values - (hessian @ basis) @ inside
    return ritz(kept.double(), image.double(), count)


def _shares(
    before: Float[Tensor, " k"], draws: list[Float[Tensor, " k"]], edge: float
) -> Float[Tensor, " b"]:
    shares = [excess_removed(before, after, edge) for after in draws]
    return torch.tensor([0.0 if math.isnan(v) else v for v in shares], dtype=torch.float64)


def _alignment(
    measured: Measurement, of_hessian: Float[Tensor, "p k"], of_g: Float[Tensor, "p k"]
) -> Alignment:
    """Everything from D V: the means themselves are never formed."""
    problem, means = measured.problem, measured.means
    rows_g, rows_h = measured.gram.rows_times(of_g), measured.gram.rows_times(of_hessian)
    inner_g, inner_h = (of_g.T @ of_g).double(), (of_hessian.T @ of_hessian).double()
    cosines: dict[str, Tensor] = {}
    gradient = problem.gradient()
    rows_gradient = measured.gram.rows_times(gradient[:, None])
    square = float(gradient.double().square().sum())
    shares = {
        "G": share_inside(inner_g, of_g.T @ gradient, square),
        "Hess": share_inside(inner_h, of_hessian.T @ gradient, square),
    }
    frame = measured.frame
    spans = {"class means": BetweenClass(frame), "cross-class means": CrossClass(frame)}
    for words, part in spans.items():
        small = means.of(part)
        if small is None:
            continue
        basis = part.basis
        cosines[f"G and {words}"] = principal_cosines(inner_g, small, rows_g.T @ basis)
        cosines[f"Hess and {words}"] = principal_cosines(inner_h, small, rows_h.T @ basis)
        if words == "class means":
            shares[words] = share_inside(small, (basis.T @ rows_gradient)[:, 0], square)
    cosines["G and Hess"] = principal_cosines(inner_g, inner_h, of_g.T @ of_hessian)
    return Alignment(cosines, shares, math.sqrt(min(1.0, measured.count / problem.size)))
