"""One problem's G measured: its top eigenpairs, its means, and every knockout."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.decomposition import MeanGram, mean_gram
from deepspec.attribution.knockouts import LOOSE, KnownPairs, SchurComplement, removed_share
from deepspec.attribution.spectra import Spectrum, at_hand, exact_spectrum_of, spectrum_of
from deepspec.class_structure.extended_gradients import GradientGram
from deepspec.class_structure.parts import (
    BetweenClass,
    CellFrame,
    Complement,
    CrossClass,
    GlobalMean,
    Means,
    OwnClass,
    Part,
    cell_frame,
)
from deepspec.class_structure.weights import Convention
from deepspec.krylov import top_eigenpairs
from deepspec.operators import SymmetricOperator
from deepspec.problem import Problem

MOST_PLACES = 20
MOST_OF_FEW = 4
REMOVABLE = ("global_mean", "between_class", "cross_class", "within_class", "own_class")
SYMBOLS = {
    "global_mean": "G_global",
    "between_class": "G_class",
    "cross_class": "G_cross",
    "within_class": "G_within",
    "own_class": "G_{c=c'}",
}


@dataclass(frozen=True)
class Settings:
    """How an attribution is measured.

    Attributes
    ----------
    convention
        [002]'s or [000]'s means.
    seed
        All randomness follows from it.
    draws
        Of each null.
    steps, probes
        Of every Lanczos density.
    exact_up_to
        Form S, and take exact spectra, when n·C is at most this.
    mini_bulk
        How many eigenvalues of the mini-bulk are looked at where spectra are not exact.
    tolerance
        Of an eigenpair's residual, relative to its eigenvalue.
    """

    convention: Convention = "jmlr2020"
    seed: int = 0
    draws: int = 19
    steps: int = 100
    probes: int = 1
    exact_up_to: int = 2000
    mini_bulk: int = 30
    tolerance: float = 1e-3

    @property
    def costly_draws(self) -> int:
        """Draws of those nulls that cost C² products or more each."""
        return min(self.draws, 5 if self.draws > MOST_OF_FEW else 3)


@dataclass(frozen=True, eq=False)
class Knockout:
    """The top eigenvalues of G with one part knocked out, and of the rest of the spectrum.

    ``rank`` is that of the part; ``projected`` is NaN where the projection was not measured.
    """

    part: str
    rank: int
    subtracted: Float[Tensor, " k"]
    projected: Float[Tensor, " k"]
    spectrum: Spectrum | None


@dataclass(frozen=True, eq=False)
class Measurement:
    """G of one problem, in the coordinates of :class:`GradientGram`.

    ``count`` is C, ``mini`` how many places of the mini-bulk are looked at, and ``outliers`` how
    many eigenvalues stand clear of the bulk, once that is known.
    """

    problem: Problem
    settings: Settings
    gram: GradientGram
    operator: SymmetricOperator
    frame: CellFrame
    means: MeanGram
    pairs: KnownPairs
    count: int
    mini: int
    outliers: int = 0

    @property
    def exact(self) -> bool:
        """Whether S is formed, and every spectrum exact."""
        return at_hand(self.operator) is not None

    @property
    def places(self) -> int:
        """How many of the top C eigenvalues are compared: with very many classes not all."""
        return self.count if self.means.complete else min(self.count, MOST_PLACES)

    def looked_at(self, name: str) -> int:
        """How many eigenvalues are needed once a part is knocked out."""
        if self.exact or name == "cross_class":
            return self.count + self.mini
        # All outliers, so that those which stay are not taken for gone.
        outliers = max(self.places, self.outliers)
        return {"within_class": self.count, "global_mean": 1}.get(name, outliers)

    def part(self, name: str) -> Part | Complement:
        """A part's projector."""
        kinds: dict[str, type[Part]] = {
            kind.name: kind for kind in (GlobalMean, BetweenClass, CrossClass, OwnClass)
        }
        return Complement(Means(self.frame)) if name == "within_class" else kinds[name](self.frame)

    def removed(self, name: str, after: Float[Tensor, " k"]) -> float:
        """The share of its claimed feature that a knockout of this part removes."""
        before = self.pairs.values.double().cpu()
        rank = self.part(name).rank
        if name == "global_mean":
            return removed_share(before, after, 0, 1, rank)
        if name == "cross_class":
            return removed_share(before, after, self.count, self.mini, rank)
        return removed_share(before, after, 0, self.places, rank)

    def removed_at_most(self, name: str, after: Float[Tensor, " k"]) -> float:
        """The same, but for the mini-bulk with what lies beyond the known eigenvalues at its most.

        Where only some places were looked at, the true share is between the two.
        """
        if name != "cross_class":
            return self.removed(name, after)
        before = self.pairs.values.double().cpu()
        rank, last = self.part(name).rank, float(before[-1])
        return removed_share(before, after, self.count, self.mini, rank, beyond=last)


def measure(problem: Problem, settings: Settings) -> Measurement:
    """The top eigenpairs of G and the Gram matrix of its means."""
    gram = GradientGram(problem)
    gram.prepare(1000)
    operator: SymmetricOperator = gram.dense() if gram.size <= settings.exact_up_to else gram
    frame = cell_frame(problem, settings.convention)
    means = mean_gram(operator, frame)
    exact = at_hand(operator)
    rank = CrossClass(frame).rank
    mini = rank if exact is not None else min(rank, settings.mini_bulk)
    count = problem.num_classes
    places = count if means.complete else min(count, MOST_PLACES)
    wanted = min(gram.size, count + max(places, 2 * mini) + 1)
    if exact is not None:
        values, vectors = torch.linalg.eigh(exact.double())
        values, vectors = values.flip(0)[:wanted], vectors.flip(1)[:, :wanted].to(exact.dtype)
        pairs = KnownPairs(values, vectors.contiguous())
    else:
        _, turn = torch.linalg.eigh(means.gram)
        start = (means.basis.double() @ turn.flip(1)[:, :count]).to(gram.dtype)
        found = top_eigenpairs(operator, wanted, tol=LOOSE, start=start)
        pairs = KnownPairs(found.values.double(), found.vectors)
    padded = torch.zeros(wanted, dtype=torch.float64, device=pairs.values.device)
    padded[: len(pairs.values)] = pairs.values
    vectors = pairs.vectors
    if len(pairs.values) < wanted:
        missing = wanted - len(pairs.values)
        vectors = torch.cat([vectors, vectors.new_zeros(len(vectors), missing)], dim=1)
    return Measurement(
        problem,
        settings,
        gram,
        operator,
        frame,
        means,
        KnownPairs(padded, vectors),
        count,
        min(mini, max(0, wanted - count)),
    )


def knock_out(measured: Measurement, name: str, *, thorough: bool) -> Knockout:
    """Remove one part by subtraction and, if ``thorough``, by projection and look at it all."""
    part = measured.part(name)
    if isinstance(part, Complement):
        return _without_within(measured, part, thorough=thorough)
    count = measured.looked_at(name)
    start = part_free(measured, part)
    nothing = torch.full((count,), torch.nan, dtype=torch.float64)
    label = f"G − {SYMBOLS[name]}"
    remaining = measured.operator.project_out(part)
    shown = thorough and name != "global_mean"
    subtracted, spectrum = _spectrum(measured, label, remaining, start, count, thorough=shown)
    if not thorough:
        return Knockout(name, part.rank, subtracted, nothing, None)
    projected = nothing
    if measured.means.complete or name != "cross_class":
        basis = part.basis
        if measured.means.complete:
            image = measured.means.image @ (measured.means.basis.T @ basis)
        else:
            image = measured.operator @ basis
        schur = SchurComplement(measured.operator, basis, image)
        projected, _ = _spectrum(measured, label, schur, start, count, thorough=False)
    return Knockout(name, part.rank, subtracted, projected, spectrum)


def part_free(measured: Measurement, part: Part) -> Float[Tensor, "m k"]:
    """The top eigenvectors of G with the part taken out of them: where to start from."""
    vectors = measured.pairs.vectors[:, : measured.count]
    return vectors - part @ vectors


def _spectrum(
    measured: Measurement,
    label: str,
    operator: SymmetricOperator,
    start: Float[Tensor, "m k"],
    count: int,
    *,
    thorough: bool,
) -> tuple[Float[Tensor, " k"], Spectrum | None]:
    """The top eigenvalues of what is left, and if asked for all of its spectrum."""
    settings = measured.settings
    top = torch.zeros(count, dtype=torch.float64)
    if measured.exact:
        matrix = at_hand(operator)
        if matrix is None:
            matrix = operator.to_dense()
        values = torch.linalg.eigvalsh(((matrix + matrix.T) / 2).double()).flip(0).cpu()
        top[: len(values)] = values[:count]
        return top, exact_spectrum_of(label, values, measured.count) if thorough else None
    begin = start if bool(start.abs().max() > 0) else None
    found = top_eigenpairs(operator, count, tol=settings.tolerance, start=begin)
    top[: len(found.values)] = found.values.double().cpu()
    if not thorough:
        return top, None
    first = measured.count
    spectrum = spectrum_of(
        label,
        operator,
        found.values[:first],
        found.vectors[:, :first],
        steps=settings.steps,
        probes=settings.probes,
        seed=settings.seed,
    )
    return top, spectrum


def _without_within(measured: Measurement, part: Complement, *, thorough: bool) -> Knockout:
    """G − G_within, the means alone: from their Gram matrix where all cells are in it."""
    count = measured.looked_at("within_class")
    top = torch.zeros(count, dtype=torch.float64)
    nothing = torch.full((count,), torch.nan, dtype=torch.float64)
    label = f"G − {SYMBOLS['within_class']}"
    if measured.means.complete:
        values = torch.linalg.eigvalsh(measured.means.gram).flip(0).cpu()
        top[: min(count, len(values))] = values[:count]
        spectrum = exact_spectrum_of(label, values, measured.count)
    else:
        start = part_free(measured, Means(measured.frame))
        remaining = measured.operator.project_out(part)
        start = measured.pairs.vectors[:, : measured.count] - start
        top, found = _spectrum(measured, label, remaining, start, count, thorough=True)
        assert found is not None
        spectrum = found
    projected = nothing
    matrix = at_hand(measured.operator)
    if thorough and matrix is not None and measured.means.complete:
        projected = projected.clone()
        left = means_beyond_within(matrix, measured.means.basis)
        projected[:] = 0.0
        projected[: min(count, len(left))] = left[:count]
    return Knockout("within_class", part.rank, top, projected, spectrum if thorough else None)


def means_beyond_within(
    matrix: Float[Tensor, "m m"], basis: Float[Tensor, "m r"]
) -> Float[Tensor, " r"]:
    """The eigenvalues of G ⊘ G_within: what of the means no scatter within classes spans.

    EᵀS E − (EᵀS W)(WᵀS W)⁺(WᵀS E), with W spanning all but the cell means E. Zero as soon as the
    n(C − 1) gradients' scatter spans the parameter space.
    """
    wide, E = matrix.double(), basis.double()
    seen = wide @ E
    beyond = seen - E @ (E.T @ seen)
    inner = wide - seen @ E.T - E @ seen.T + E @ (E.T @ seen) @ E.T
    values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
    kept = values > 1e-9 * values[-1]
    root = (vectors[:, kept].T @ beyond) / values[kept].sqrt()[:, None]
    left = E.T @ seen - root.T @ root
    return torch.linalg.eigvalsh((left + left.T) / 2).flip(0).clamp_min(0.0).cpu()


def without_pairs(measured: Measurement) -> Measurement:
    """The same with only the pairs that lie above zero: for nulls that start from them."""
    known = measured.pairs
    kept = known.values > 1e-9 * known.values[0]
    return replace(measured, pairs=KnownPairs(known.values[kept], known.vectors[:, kept]))
