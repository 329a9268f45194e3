"""One array measured: the top eigenpairs of its second moment, and its means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.decomposition import MeasuredMeans, measure_means
from deepspec.attribution.knockouts import (
    LOOSE,
    removed_share,
)
from deepspec.attribution.mini_bulk import Located, MiniBulk, describe_mini_bulk, locate
from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.cells import Convention
from deepspec.class_structure.gram import Gram, gram_bytes
from deepspec.class_structure.parts import CrossClass, Part
from deepspec.class_structure.rows import RowsGram, without
from deepspec.krylov import Eigenpairs, top_eigenpairs
from deepspec.operators import SymmetricOperator

MOST_PLACES = 20
MOST_OF_FEW = 4
# Of the free memory, what the Gram matrix and its eigenvalue problems may take.
SHARE_OF_MEMORY = 0.5
# Eigenvalue problems of the size of S (with all its eigenvectors it counts for five), and one costs
# about so much per m³ (roughly).
EIGENPROBLEMS, SECONDS_PER_CUBE, MOST_SECONDS = 10, 4e-11, 60.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an attribution is measured.

    Attributes
    ----------
    convention
        The means of Papyan (2020), "jmlr2020", or of Papyan (2019), "icml2019".
    seed
        All randomness follows from it.
    draws
        Of each null.
    steps, probes
        Of every Lanczos density.
    exact_up_to
        Form S, and take exact spectra, when n·C is at most this; None: where it fits the memory
        and its eigenvalue problems take about a minute.
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
    exact_up_to: int | None = None
    mini_bulk: int = 30
    tolerance: float = 1e-3

    @property
    def costly_draws(self) -> int:
        """Draws of those nulls that cost C² products or more each."""
        return min(self.draws, 5 if self.draws > MOST_OF_FEW else 3)


@dataclass(frozen=True, eq=False, repr=False)
class Measurement:
    """One array, with the top eigenpairs of S.

    ``count`` is C, ``mini`` how many places of the mini-bulk are looked at where S is not formed,
    and ``outliers`` how many eigenvalues stand clear of the bulk, once that is known.
    """

    array: ClassArray
    settings: Settings
    operator: SymmetricOperator
    means: MeasuredMeans
    pairs: Eigenpairs
    count: int
    mini: int
    outliers: int = 0

    @property
    def exact(self) -> bool:
        """Whether S is formed, and every spectrum exact."""
        return isinstance(self.operator, Gram)

    @property
    def gram(self) -> Gram:
        """S, where it is formed."""
        assert isinstance(self.operator, Gram)
        return self.operator

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

    @property
    def enough(self) -> int:
        """How many eigenvalues tell what a knockout leaves of the outliers, and some more.

        No eigenvalue grows, so that at most as many stand clear of the bulk as did before.
        """
        return min(self.count + self.mini, max(2 * self.count, self.outliers + 1))

    def part(self, name: str) -> Part:
        """A part's projector."""
        return self.array.projector(name)

    def label(self, name: str) -> str:
        """What is left without a part, as figures call it."""
        return without(self.array.rows.symbol, name)

    @cached_property
    def located(self) -> Located | None:
        """The mini-bulk where it is; not known where S is not formed."""
        return locate(self.gram, CrossClass(self.array.cells)) if self.exact else None

    @property
    def mini_bulk(self) -> MiniBulk | None:
        """What is known of the mini-bulk's place."""
        if self.located is None:
            return None
        return describe_mini_bulk(self.located, CrossClass(self.array.cells))

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


def forms_gram(array: ClassArray, settings: Settings) -> bool:
    """Whether S is formed: by an estimate of memory and time, unless a size was given."""
    if settings.exact_up_to is not None:
        return array.rows.size <= settings.exact_up_to
    if (
        EIGENPROBLEMS * SECONDS_PER_CUBE * min(array.rows.size, array.rows.width) ** 3
        > MOST_SECONDS
    ):
        return False
    return gram_bytes(array.rows) <= SHARE_OF_MEMORY * array.rows.free_memory()


def measure(array: ClassArray, settings: Settings) -> Measurement:
    """The top eigenpairs of S and the Gram matrix of its means."""
    exact = forms_gram(array, settings)
    operator: SymmetricOperator = array.gram if exact else RowsGram(array.rows)
    if not exact:
        operator.prepare(1000)
    means = measure_means(array, operator)
    rank = CrossClass(array.cells).rank
    mini = rank if exact else min(rank, settings.mini_bulk)
    count = array.num_classes
    places = count if means.complete else min(count, MOST_PLACES)
    wanted = min(operator.size, count + max(places, 2 * mini) + 1)
    if isinstance(operator, Gram):
        values, vectors = operator.eigenpairs
        values, vectors = values[:wanted], vectors[:, :wanted].contiguous()
    else:
        _, turn = torch.linalg.eigh(means.gram)
        start = (means.basis @ turn.flip(1)[:, :count]).to(operator.dtype)
        found = top_eigenpairs(operator, wanted, tol=LOOSE, start=start)
        values, vectors = found.values.double(), found.vectors
    full = values.new_zeros(wanted)
    full[: len(values)] = values
    missing = wanted - len(values)
    if missing:
        vectors = torch.cat([vectors, vectors.new_zeros(len(vectors), missing)], dim=1)
    return Measurement(
        array,
        settings,
        operator,
        means,
        Eigenpairs.exact(full, vectors),
        count,
        min(mini, max(0, wanted - count)),
    )


def without_zero_pairs(measured: Measurement) -> Eigenpairs:
    """The eigenpairs that lie above zero: for nulls that start from them."""
    known = measured.pairs
    kept = known.values > 1e-9 * known.values[0]
    return Eigenpairs.exact(known.values[kept], known.vectors[:, kept])


def with_outliers(measured: Measurement, outliers: int) -> Measurement:
    """The same, now that it is known where the bulk ends."""
    return replace(measured, outliers=outliers)
