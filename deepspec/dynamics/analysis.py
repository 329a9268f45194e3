"""One moment of a training measured: spectra of G, its parts, Hess and E, and how far apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.stats
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
from deepspec.class_structure.two_way import TwoWayLayout, two_way_layout
from deepspec.krylov import top_eigenpairs
from deepspec.operators import Hessian, Residual, SymmetricOperator
from deepspec.problem import Problem
from deepspec.storage.results import Saved

PROBES = 24
FLOOR = 1e-5
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


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SnapshotSpectra(Saved):
    """What a net is like after some epoch of its training, on its training data.

    Attributes
    ----------
    epoch
        0 is the untrained net.
    samples, classes, parameters
        n, C, p.
    loss, error_rate, test_error
        In eval mode; the test error is NaN where it is not known.
    exact
        Whether spectra of G are; by Lanczos otherwise.
    trace
        tr G.
    spectrum, within
        Of G, and of G_within: eigenvalues of S (samples × classes of them).
    class_values, cross_values, own_values
        The eigenvalues of G_class, G_cross and G_{c=c'} (Papyan 2020, eq. 6.4), descending.
    within_means
        tr G_within,c / n_c for each class c: the mean eigenvalues of Papyan (2020) Fig. 6.
    within_trace
        tr G_within.
    levels
        Eigenvalues of ``G0``, ``G1``, ``G2`` and ``G1+2`` of Papyan (2019), eq. 23 and 28.
    hessian
        Spectra of Hess and E, where they were asked for.
    layout, means
        How the mean gradients split between c and c', and what a map of them needs.
    """

    epoch: int
    samples: int
    classes: int
    parameters: int
    loss: float
    error_rate: float
    test_error: float
    exact: bool
    trace: float
    spectrum: Spectrum
    within: Spectrum
    class_values: Float[Tensor, " a"]
    cross_values: Float[Tensor, " b"]
    own_values: Float[Tensor, " c"]
    within_means: Float[Tensor, " C"]
    within_trace: float
    levels: dict[str, Float[Tensor, " _"]]
    hessian: tuple[Spectrum, ...]
    layout: TwoWayLayout | None
    means: MeansMap | None

    def __repr__(self) -> str:
        return (
            f"SnapshotSpectra(epoch {self.epoch}, n = {self.samples:,}, p = {self.parameters:,}, "
            f"error {self.error_rate:.1%}, tr G {self.trace:.3g}, G_cross "
            f"{self.separation:+.2f} decades from G_within)"
        )

    @property
    def within_rank(self) -> int:
        """How many nonzero eigenvalues G_within has: n(C − 1) less those of means, at most p."""
        rank = (self.samples - self.classes) * (self.classes - 1)
        return max(1, min(rank, self.parameters))

    @property
    def separation(self) -> float:
        """log₁₀ of the mean nonzero eigenvalue of G_cross over that of G_within, in decades.

        Traces over ranks: how far apart the two bulks of Papyan (2020) §6.2 are, without a word on
        which eigenvalues count as zero.
        """
        return self._decades(float(self.cross_values.sum()), self.classes * (self.classes - 2))

    @property
    def distance(self) -> float:
        """How far apart the bulks of G_cross and G_within are on the log axis, in decades.

        The area between the distribution functions of log₁₀ of their nonzero eigenvalues, those
        below 10⁻⁵ of λ₁(G) counted as that: as far as Papyan (2020) Fig. 6 looks. It does not say
        which of the two lies to the right.
        """
        floor = FLOOR * float(self.spectrum.top[0])
        cross = torch.zeros(self.classes * (self.classes - 2), dtype=torch.float64)
        if not len(cross) or not len(self.cross_values) or floor <= 0:
            return math.nan
        kept = min(len(cross), len(self.cross_values))
        cross[:kept] = self.cross_values[:kept]
        order = self.within.nodes.argsort(descending=True)
        values, counts = self.within.nodes[order], self.within.counts[order].double()
        # As many as the rank says: what lies below is zero, or (fewer were found) too small.
        left = (self.within_rank - counts.cumsum(0)).clamp_max(0.0)
        counts = (counts + left).clamp_min(0.0)
        missing = max(0.0, self.within_rank - float(counts.sum()))
        values = torch.cat([values, values.new_zeros(1)]).clamp_min(floor).log10()
        counts = torch.cat([counts, counts.new_tensor([missing])])
        return float(
            scipy.stats.wasserstein_distance(
                cross.clamp_min(floor).log10(), values, v_weights=counts
            )
        )

    @property
    def class_separation(self) -> float:
        """The same for G_class."""
        return self._decades(float(self.class_values.sum()), self.classes)

    def _decades(self, trace: float, rank: int) -> float:
        if rank < 1 or trace <= 0 or self.within_trace <= 0:
            return math.nan
        return math.log10(trace / rank) - math.log10(self.within_trace / self.within_rank)

    @property
    def edge_of_e(self) -> float:
        """The largest |λ| of E: what Papyan (2018) Fig. 6 scales its axes by; NaN without Hess."""
        for spectrum in self.hessian:
            if spectrum.operator == "E":
                return float(torch.cat([spectrum.top, spectrum.nodes]).abs().max())
        return math.nan


def analyse(
    problem: Problem,
    *,
    epoch: int = 0,
    test_error: float = math.nan,
    hessian: bool = True,
    steps: int = 60,
    exact_up_to: int = 1500,
    seed: int = 0,
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
        gradients(problem), Settings(seed=seed, steps=steps, exact_up_to=exact_up_to)
    )
    cells, means = measured.array.cells, measured.means
    whole = total_trace(measured.operator, seed).value
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
        levels={name: found.double() for name, found in levels.items()},
        hessian=_hessian(measured, problem) if hessian else (),
        layout=two_way_layout(
            means.gram, cells.weights[cells.occupied], [(c, o) for c, o in cells.places.tolist()]
        )
        if means.complete
        else None,
        means=_map(measured),
    )


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
    return MeansMap(cells.places.tolist(), (means.gram / root[:, None] / root).cpu(), weights.cpu())
