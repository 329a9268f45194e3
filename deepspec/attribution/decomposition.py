"""G as a sum of its parts: how much of it each one is, in either convention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.knockouts import top_values
from deepspec.class_structure.parts import (
    BetweenClass,
    CellFrame,
    Complement,
    Means,
    OwnClass,
    Part,
    named_parts,
    within_class,
)
from deepspec.class_structure.weights import ClassStructure, Convention
from deepspec.krylov import Estimate, trace
from deepspec.operators import GaussNewton, SymmetricOperator
from deepspec.problem import Problem

MOST_CELLS = 1024
PRODUCTS_FOR_TRACE = 48
FEW = 10


@dataclass(frozen=True, eq=False)
class PartSummary:
    """One part: its dimension, its trace, its share of tr G, and its top eigenvalues."""

    name: str
    rank: int
    trace: float
    share: float
    top: Float[Tensor, " k"]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """G = G_class + G_cross + G_within + G_{c=c'} ([002] eq. 6.4) or G1 + G2 + G3 + G0 ([000] 28).

    Attributes
    ----------
    convention
        "jmlr2020" or "icml2019".
    parts
        between_class, cross_class, within_class, own_class, and "means", the sum of all but
        within_class (G1+2 of [000] eq. 23).
    residual
        ‖(Σ parts − G) v‖/‖G v‖ for a random v: rounding, if the identity holds.
    """

    convention: str
    parts: tuple[PartSummary, ...]
    residual: float

    def part(self, name: str) -> PartSummary:
        """One part by name."""
        return {part.name: part for part in self.parts}[name]


@dataclass(frozen=True, eq=False)
class MeanGram:
    """What the cell means say: E, S E and EᵀS E, for all cells or (too many) for class means.

    ``complete`` says which; ``cells`` names the columns of a complete one.
    """

    frame: CellFrame
    basis: Float[Tensor, "m r"]
    image: Float[Tensor, "m r"]
    gram: Float[Tensor, "r r"]
    complete: bool

    def of(self, part: Part) -> Float[Tensor, "j j"] | None:
        """⟨means, means⟩ within one part, on an orthonormal basis of it."""
        if not self.complete and not isinstance(part, (BetweenClass, OwnClass)):
            return None
        turn = self.basis.double().T @ part.basis.double()
        return turn.T @ self.gram @ turn


def mean_gram(gram: SymmetricOperator, frame: CellFrame) -> MeanGram:
    """S times the cell means' directions: C² products, or 2C where C² is above 1,024."""
    complete = int(frame.occupied.sum()) <= MOST_CELLS
    if complete:
        basis = frame.vectors()
    else:
        parts = named_parts(frame)
        basis = torch.cat([parts["between_class"].basis, parts["own_class"].basis], dim=1)
    image = gram @ basis
    matrix = basis.double().T @ image.double()
    return MeanGram(frame, basis, image, (matrix + matrix.T) / 2, complete)


def decompose(
    gram: SymmetricOperator,
    means: MeanGram,
    convention: Convention,
    whole_trace: float,
    top: int,
    residual: float,
    start: Float[Tensor, "m k"],
    seed: int,
) -> Decomposition:
    """Summaries of all parts.

    Parameters
    ----------
    gram
        S.
    means
        Its products with the means' directions.
    whole_trace
        tr G.
    top
        How many eigenvalues of each part; 10 of those that cost products, with very many classes.
    residual
        See :func:`identity_residual`.
    start
        Directions that the top eigenvectors of G_within may be near.
    """
    frame = means.frame
    few = top if means.complete else min(top, FEW)
    summaries = []
    whole: dict[str, Part] = {**named_parts(frame), "means": Means(frame)}
    for name, part in whole.items():
        small = means.of(part)
        if small is not None:
            values = torch.linalg.eigvalsh(small).flip(0).cpu()
            kept = torch.zeros(top, dtype=torch.float64)
            kept[: min(top, len(values))] = values[:top].clamp_min(0.0)
            size = float(values.sum())
        else:
            inside = gram.project_out(Complement(part))
            kept = top_values(inside, few)
            size = trace(inside, PRODUCTS_FOR_TRACE, seed=seed).value
        summaries.append(PartSummary(name, part.rank, size, size / whole_trace, kept))
    within = within_class(frame)
    size = whole_trace - summaries[-1].trace
    values = torch.zeros(few, dtype=torch.float64)
    if within.rank:
        values = top_values(gram.project_out(Means(frame)), few, start[:, :few])
    share = size / whole_trace
    summaries.insert(2, PartSummary("within_class", within.rank, size, share, values))
    return Decomposition(convention, tuple(summaries), residual)


def total_trace(gram: SymmetricOperator, seed: int) -> Estimate:
    """tr S = tr G: exact where S is formed, else estimated with its standard error."""
    matrix = getattr(gram, "matrix", None)
    if isinstance(matrix, Tensor):
        return Estimate(float(matrix.trace()), 0.0, 0)
    return trace(gram, PRODUCTS_FOR_TRACE, seed=seed)


def identity_residual(problem: Problem, convention: Convention, seed: int) -> float:
    """‖(Σ parts − G) v‖/‖G v‖ for a random v in parameter space, each part multiplied by itself."""
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(problem.size, generator=generator).to(problem.device, problem.dtype)
    whole = GaussNewton(problem) @ vector
    parts = ClassStructure(problem, convention).named().values()
    total = sum((part @ vector for part in parts), start=torch.zeros_like(whole))
    size = float(whole.norm())
    return float((total - whole).norm()) / size if size else 0.0
