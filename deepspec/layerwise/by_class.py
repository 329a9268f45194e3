"""CFAC: KFAC class by class, which knows that a class's errors meet that class's inputs."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.krylov import NotConverged, top_eigenpairs
from deepspec.layerwise.class_spectrum import RitzPairs, ritz_pairs
from deepspec.layerwise.records import Shared
from deepspec.layerwise.sides import Batches, error_rows, input_rows, require_room
from deepspec.memory import free_memory
from deepspec.operators import KroneckerSum
from deepspec.operators.factors import Factor, MomentSum
from deepspec.operators.kronecker import check_count
from deepspec.seeds import Seed, whole_seed

# Up to this many rows all eigenvalues at once take a moment, and no iteration need converge.
DENSE = 1024
# What the vectors of a Lanczos search may take.
SEARCH_BYTES = 2**28


class ClassKronecker(KroneckerSum):
    """Σ_c (n_c/n) Δ_c ⊗ H_c as an operator, with its largest eigenvalues.

    A sum of Kronecker products has no closed spectrum. Up to 1,024 rows it is found densely; then
    by thick-restart Lanczos, to 1e-6; and where a search's vectors would take more than 256 MB, by
    Rayleigh–Ritz in the classes' own top eigenvectors, from below, outliers to 1e-4 and others to
    some 1e-3
    (:func:`deepspec.layerwise.class_spectrum.ritz_pairs`).

    Parameters
    ----------
    terms
        Pairs of a class's two factors.
    seed
        Of the Lanczos start vector.
    """

    def __init__(self, terms: list[tuple[Factor, Factor]], seed: Seed = 0) -> None:
        super().__init__(terms)
        self.seed = whole_seed(seed)
        self._known: tuple[Tensor, Tensor] | None = None
        self._ritz: RitzPairs | None = None

    def describe(self) -> str:
        return f"CFAC of {len(self.terms)} classes {self.rows:,} ⊗ {self.columns:,}"

    def eigenvalues(self, k: int | None = None) -> Float[Tensor, " k"]:
        """The k largest eigenvalues, descending, float64; all p by default, densely.

        Raises
        ------
        MemoryError
            If all are asked for, and the matrix does not fit.
        """
        if k is None:
            needed, free = 24 * self.size**2, free_memory(self.device)
            if needed > free:
                raise MemoryError(
                    f"expected {needed / 1e9:.3g} GB for all {self.size:,} eigenvalues of CFAC, "
                    f"{free / 1e9:.3g} GB are free; ask for the k largest: .eigenvalues(k)"
                )
            return self._dense[0]
        wanted = min(check_count(k), self.size)
        if self._is_long(wanted):
            return self._ritz_pairs(wanted).values[:wanted]
        return self.eigenpairs(wanted)[0]

    def _is_long(self, k: int) -> bool:
        """Whether a Lanczos search for k pairs would hold too many numbers."""
        return self.size > DENSE and (2 * k + 20) * self.size * self.dtype.itemsize > SEARCH_BYTES

    def _ritz_pairs(self, k: int) -> RitzPairs:
        if self._ritz is None or len(self._ritz.values) < k:
            self._ritz = ritz_pairs(self.terms, k)
        return self._ritz

    def eigenpairs(self, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "p k"]]:
        """The k largest eigenvalues and their vectors; fewer where the others are zero."""
        wanted = min(check_count(k), self.size)
        if self._is_long(wanted):
            found = self._ritz_pairs(wanted)
            return found.values[:wanted], found.vectors(wanted).to(self.dtype)
        if self.size <= DENSE or 4 * wanted > self.size:
            values, vectors = self._dense
            return values[:wanted], vectors[:, :wanted].to(self.dtype)
        if self._known is None or len(self._known[0]) < wanted:
            try:
                pairs = top_eigenpairs(self, wanted, seed=self.seed)
            except NotConverged as error:
                pairs = error.pairs
            self._known = pairs.values.double(), pairs.vectors
        values, vectors = self._known
        return values[:wanted], vectors[:, :wanted]

    @cached_property
    def _dense(self) -> tuple[Float[Tensor, " p"], Float[Tensor, "p p"]]:
        matrix = self.to_dense().double()
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        return values.flip(0), vectors.flip(1)


def cfac(
    batches: Batches,
    shared: Shared = "expand",
    *,
    bias: bool = False,
    labels: Int[Tensor, " n"] | None = None,
    seed: Seed = 0,
) -> ClassKronecker:
    """Σ_c (n_c/n) Δ_c ⊗ H_c: inputs and errors as if independent within each class only.

    Papyan (2020), Definition 7.2, with H_c the mean over class c of h hᵀ, and Δ_c that of
    Σ_c' p_{i,c'} δ δᵀ, so that Σ_c (n_c/n) Δ_c = Δ, as KFAC has it. A class without samples has no
    term; where each class has one sample, and one position, it is G^l itself.

    Parameters
    ----------
    batches, shared, bias
        As in :func:`~deepspec.layerwise.one_product.kfac`. One pass, and two factors a class.
    labels
        Other groups in place of the classes, such as shuffled labels: a null.
    seed
        Of the Lanczos iteration that finds its eigenvalues.

    Raises
    ------
    MemoryError
        If the factors do not fit; says which width would.
    ValueError
        If there is no batch.
    """
    inputs: dict[int, MomentSum] = {}
    errors: dict[int, MomentSum] = {}
    counts: dict[int, int] = {}
    samples = 0
    for batch in batches():
        if not samples:
            require_room(batch, batch.errors.shape[1])
        if labels is not None:
            batch = replace(batch, labels=labels[batch.rows])
        samples = batch.num_samples
        for sums, (rows, owners) in (
            (inputs, input_rows(batch, shared, bias)),
            (errors, error_rows(batch, shared)),
        ):
            for label in owners.unique().tolist():
                sums.setdefault(label, MomentSum(rows.shape[1])).add(rows[owners == label])
        for label, count in enumerate(torch.bincount(batch.labels).tolist()):
            counts[label] = counts.get(label, 0) + count
    if not inputs:
        raise ValueError("expected at least one batch of inputs and errors, got none")
    # Rows weigh 1/n: a class's mean is its sum times n/n_c.
    terms = [
        (errors[label].factor(), inputs[label].factor(samples / counts[label]))
        for label in sorted(inputs)
    ]
    return ClassKronecker(terms, seed)
