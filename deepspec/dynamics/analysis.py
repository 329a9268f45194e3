"""One moment of a training measured: spectra of G, of its parts, of Hess and E."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.decomposition import measure_means, total_trace
from deepspec.attribution.knockouts import LOOSE
from deepspec.attribution.measurement import Measurement, Settings, measure
from deepspec.attribution.seeding import stream
from deepspec.attribution.spectra import (
    FORMED_UP_TO,
    Spectrum,
    dense_spectrum,
    exact_spectrum_of,
    lanczos_spectrum,
)
from deepspec.attribution.split import MeansMap
from deepspec.class_structure import gradients
from deepspec.class_structure.gram import FactorGram, MatrixGram, descending, nonzero
from deepspec.class_structure.parts import (
    BetweenClass,
    CellMeans,
    CrossClass,
    MeanPart,
    OwnClass,
    WithinClass,
)
from deepspec.class_structure.two_way import two_way_layout
from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.krylov import top_eigenpairs
from deepspec.operators import Hessian, Residual, SymmetricOperator
from deepspec.problem import Problem
from deepspec.seeds import Seed, whole_seed

PROBES = 24
LEVELS: dict[str, type[MeanPart]] = {
    "G0": OwnClass,
    "G1": BetweenClass,
    "G2": CrossClass,
    "G1+2": CellMeans,
}
"""Papyan (2019), eq. 23 and 28."""

FIXED: dict[str, str | int] = {
    "hessian: nesting": "reverse over reverse",
    "columns at once: TransientJacobian": 1,
    "columns at once: ReverseJacobian": 1,
}
"""A plan of products that always works, so that what is measured does not depend on timings."""


def analyse(
    problem: Problem,
    *,
    epoch: int = 0,
    test_error: float = math.nan,
    hessian: bool = True,
    steps: int = 60,
    exact_up_to: int = 1500,
    seed: Seed = 0,
) -> SnapshotSpectra:
    """Measure a net as it is.

    Parameters
    ----------
    problem
        The net and its training data.
    epoch, test_error
        To stand beside what is measured.
    hessian
        Spectra of Hess and E, too.
    steps
        Of each Lanczos density.
    exact_up_to
        Spectra of G are exact where n · C is at most this.
    seed
        Of start vectors and probes.

    Raises
    ------
    ValueError
        If ``steps`` is below 2.

    >>> model = torch.nn.Linear(3, 3, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> data = torch.eye(3, dtype=torch.float64).repeat(2, 1), torch.arange(3).repeat(2)
    >>> found = analyse(Problem(model, data))
    >>> round(found.trace, 9), found.exact, round(found.within_trace, 9) + 0.0
    (1.333333333, True, 0.0)
    """
    if steps < 2:
        raise ValueError(f"expected at least 2 Lanczos steps, got {steps}")
    measured = measure(
        gradients(problem), Settings(seed=whole_seed(seed), steps=steps, exact_up_to=exact_up_to)
    )
    cells, means = measured.array.cells, measured.means
    whole = total_trace(measured.operator, measured.settings.seed).value
    values = {part: _values(measured, part) for part in (BetweenClass, CrossClass, OwnClass)}
    by_class = _within_traces(measured)
    within = _within(measured)
    older = gradients(problem, "icml2019")
    of_levels = measure_means(older, measured.operator)
    levels = {}
    for name, part in LEVELS.items():
        small = of_levels.inside(part(older.cells))
        levels[name] = torch.zeros(0) if small is None else descending(small).clamp_min(0.0).cpu()
    return SnapshotSpectra(
        epoch=epoch,
        samples=problem.num_samples,
        classes=problem.num_classes,
        parameters=problem.size,
        loss=problem.loss,
        error_rate=problem.error_rate,
        test_error=test_error,
        exact=measured.exact,
        trace=whole,
        spectrum=_spectrum(measured),
        within=within,
        class_values=values[BetweenClass],
        cross_values=values[CrossClass],
        own_values=values[OwnClass],
        within_means=(by_class / problem.class_counts.clamp_min(1)).cpu(),
        within_trace=float(by_class.sum()),
        within_rank=rank_within(problem.class_counts.tolist(), problem.num_classes, problem.size),
        levels={name: found.double() for name, found in levels.items()},
        hessian=_hessian(measured, problem) if hessian else (),
        layout=two_way_layout(
            means.gram, cells.weights[cells.occupied], [(c, o) for c, o in cells.places.tolist()]
        )
        if means.complete
        else None,
        means=_map(measured),
    )


def rank_within(counts: list[int], classes: int, parameters: int) -> int:
    """The rank of G_within, for a net without coincidences.

    n_c samples of a class have n_c (C − 1) independent vectors, as Σ_c' p_{i,c'} g_{i,c'} = 0; what
    lies off the C cell means is of dimension C (n_c − 1). The smaller of the two counts.

    >>> rank_within([4, 3, 1], 3, 1000)
    14
    """
    ranks = [min(n * (classes - 1), classes * (n - 1)) for n in counts if n]
    return max(1, min(sum(ranks), parameters))


def _values(measured: Measurement, part: type[MeanPart]) -> Float[Tensor, " r"]:
    """A part's eigenvalues; where there are too many cells, none of G_cross."""
    small = measured.means.inside(part(measured.array.cells))
    if small is None:
        return torch.zeros(0, dtype=torch.float64)
    return descending(small).clamp_min(0.0).cpu()


def _within_traces(measured: Measurement) -> Float[Tensor, " C"]:
    """tr G_within,c for each c: exact where S is formed, else by probes with S."""
    cells = measured.array.cells
    within, columns = WithinClass(cells), cells.share.shape[1]
    index = cells.labels.repeat_interleave(columns)
    found = torch.zeros(len(cells.weights), dtype=torch.float64, device=index.device)
    if measured.exact:
        gram = measured.gram
        if isinstance(gram, MatrixGram):
            diagonal = gram.matrix.diagonal()
        else:
            assert isinstance(gram, FactorGram)
            diagonal = gram.factor.square().sum(dim=1)
        found.index_add_(0, index, diagonal.double())
        inside = measured.means.gram.diagonal().double()
        return found.index_add_(0, cells.places[:, 0], -inside).clamp_min(0.0)
    generator = stream(measured.settings.seed, "traces within classes")
    for _ in range(PROBES):
        signs = torch.randint(0, 2, (len(index), 1), generator=generator).to(index.device)
        probe = within.on_rows(2.0 * signs.double() - 1.0)
        image = measured.operator @ probe.to(measured.operator.dtype)
        found.index_add_(0, index, (probe * image)[:, 0] / PROBES)
    return found.clamp_min(0.0)


def _within(measured: Measurement) -> Spectrum:
    within = WithinClass(measured.array.cells)
    if measured.exact:
        values = nonzero(measured.gram.transformed(within.on_rows), measured.array.rows.dtype)
        return exact_spectrum_of("G_within", values.clamp_min(0.0), 0)
    inside = measured.operator.project_out(CellMeans(measured.array.cells))
    return _estimate(measured, "G_within", inside)


def _spectrum(measured: Measurement) -> Spectrum:
    count = measured.count
    if measured.exact:
        return exact_spectrum_of("G", measured.gram.eigenvalues.clamp_min(0.0), count)
    return _estimate(
        measured,
        "G",
        measured.operator,
        measured.pairs.values[:count].cpu(),
        measured.pairs.vectors[:, :count],
    )


def _estimate(
    measured: Measurement,
    name: str,
    operator: SymmetricOperator,
    top: Float[Tensor, " k"] | None = None,
    vectors: Float[Tensor, "m k"] | None = None,
    *,
    reorthogonalize: bool = True,
) -> Spectrum:
    if top is None or vectors is None:
        top = torch.zeros(0, dtype=torch.float64)
        vectors = torch.zeros(operator.size, 0, dtype=operator.dtype, device=operator.device)
    return lanczos_spectrum(
        name,
        operator,
        top,
        vectors,
        steps=measured.settings.steps,
        probes=1,
        seed=measured.settings.seed,
        reorthogonalize=reorthogonalize,
    )


def _hessian(measured: Measurement, problem: Problem) -> tuple[Spectrum, ...]:
    """Hess with its top C apart (Papyan 2020, Fig. 4), and E."""
    hessian, residual = Hessian(problem), Residual(problem)
    count = min(problem.num_classes, problem.size)
    if problem.size <= FORMED_UP_TO:
        return dense_spectrum("Hess", hessian, count), dense_spectrum("E", residual, 0)
    pairs = top_eigenpairs(hessian, count, tol=LOOSE, seed=measured.settings.seed)
    top, vectors = pairs.values[:count], pairs.vectors[:, :count]
    return (
        _estimate(measured, "Hess", hessian, top, vectors, reorthogonalize=False),
        _estimate(measured, "E", residual, reorthogonalize=False),
    )


def _map(measured: Measurement) -> MeansMap | None:
    """⟨m, m⟩ of the plain means."""
    means, cells = measured.means, measured.array.cells
    if not means.complete:
        return None
    weights = cells.weights[cells.occupied]
    root = weights.sqrt()
    gram = (means.gram / root[:, None] / root).cpu()
    return MeansMap(cells=cells.places.tolist(), gram=gram, weights=weights.cpu())
