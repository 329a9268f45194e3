"""A second moment as a sum of its parts: how much of it each one is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.knockouts import times, top_of, top_values
from deepspec.attribution.seeding import stream
from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.downdate import knocked_out
from deepspec.class_structure.gram import Gram, descending
from deepspec.class_structure.parts import (
    PARTS,
    BetweenClass,
    CellMeans,
    CrossClass,
    MeanPart,
    OwnClass,
    WithinClass,
)
from deepspec.krylov import Estimate, trace
from deepspec.operators import Projector, SymmetricOperator
from deepspec.storage.display import Result, Table, Tabular

MOST_CELLS = 1024
MATVECS_FOR_TRACE = 48
FEW = 10


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PartSummary(Result):
    """One part: its dimension, its trace, its share of tr V, and its top eigenvalues."""

    name: str
    rank: int
    trace: float
    share: float
    top: Float[Tensor, " k"]

    def _words(self) -> list[str]:
        words = [self.name, f"{self.share:.1%} of the trace", f"rank at most {self.rank:,}"]
        return [*words, f"largest eigenvalue {float(self.top[0]):.4g}"] if len(self.top) else words


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Decomposition(Result, Tabular):
    """V = V_class + V_cross + V_within + V_{c=c'} (Papyan 2020, eq. 6.4; Papyan 2019, eq. 28).

    Attributes
    ----------
    convention
        "jmlr2020" or "icml2019".
    parts
        between_class, cross_class, within_class, own_class, and "means", the sum of all but
        within_class (G1+2 of Papyan 2019, eq. 23).
    residual
        ‖(Σ parts − V) v‖/‖V v‖ for a random v: rounding, if the identity holds.
    """

    convention: str
    parts: tuple[PartSummary, ...]
    residual: float

    def part(self, name: str) -> PartSummary:
        """One part by name."""
        return {part.name: part for part in self.parts}[name]

    def _words(self) -> list[str]:
        return [
            self.convention,
            *(f"{part.name} {part.share:.1%}" for part in self.parts),
            f"they add up to {self.residual:.1e}",
        ]

    def _table(self) -> Table:
        return {
            "part": [part.name for part in self.parts],
            "rank": [part.rank for part in self.parts],
            "trace": [part.trace for part in self.parts],
            "share": [part.share for part in self.parts],
            "largest": [float(part.top[0]) if len(part.top) else 0.0 for part in self.parts],
        }


@dataclass(frozen=True, eq=False)
class MeasuredMeans:
    """The cell means' directions E with S E and EᵀS E; of all cells or (too many) of class means.

    ``complete`` says which.
    """

    array: ClassArray
    basis: Float[Tensor, "m r"]
    image: Float[Tensor, "m r"]
    gram: Float[Tensor, "r r"]
    complete: bool

    def inside(self, part: MeanPart) -> Float[Tensor, "j j"] | None:
        """⟨means, means⟩ within one part, on an orthonormal basis of it; None if not known."""
        if not self.complete and not isinstance(part, (BetweenClass, OwnClass)):
            return None
        turn = self.basis.T @ part.basis
        return turn.T @ self.gram @ turn

    @property
    def space(self) -> Projector:
        """The projector onto the span of E."""
        cells = self.array.cells
        return CellMeans(cells) if self.complete else _ClassMeansOnly(cells)


class _ClassMeansOnly(MeanPart):
    """P_class + P_own."""

    name = "class_means"

    @property
    def rank(self) -> int:
        return BetweenClass(self.cells).rank + OwnClass(self.cells).rank

    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        return BetweenClass(self.cells).on_cells(cells) + OwnClass(self.cells).on_cells(cells)


def measure_means(array: ClassArray, operator: SymmetricOperator) -> MeasuredMeans:
    """S times the cell means' directions: C² products, or 2C where C² is above 1,024."""
    cells = array.cells
    complete = len(cells.places) <= MOST_CELLS
    basis = (
        CellMeans(cells).basis
        if complete
        else torch.cat([BetweenClass(cells).basis, OwnClass(cells).basis], dim=1)
    )
    image = times(operator, basis)
    matrix = basis.T @ image
    return MeasuredMeans(array, basis, image, (matrix + matrix.T) / 2, complete)


def decompose(
    operator: SymmetricOperator,
    means: MeasuredMeans,
    convention: str,
    whole_trace: float,
    top: int,
    start: Float[Tensor, "m k"],
    seed: int,
) -> Decomposition:
    """Summaries of all parts.

    Parameters
    ----------
    operator
        S.
    means
        Its products with the means' directions.
    whole_trace
        tr S.
    top
        How many eigenvalues of each part; 10 of those that cost products, with very many classes.
    start
        Directions that the top eigenvectors of V_within may be near.
    """
    cells = means.array.cells
    few = top if means.complete else min(top, FEW)
    summaries = []
    kinds: tuple[type[MeanPart], ...] = (BetweenClass, CrossClass, OwnClass, CellMeans)
    for part in (kind(cells) for kind in kinds):
        small = means.inside(part)
        if small is not None:
            values = descending(small).cpu()
            kept = padded(values.clamp_min(0.0), top)
            size = float(values.sum())
        else:
            inside = operator.project_out(_Complement(part))
            kept = top_values(inside, few)
            size = trace(inside, MATVECS_FOR_TRACE, seed=stream(seed, "trace")).value
        summaries.append(_summary(part.name, part.rank, size, whole_trace, kept))
    within = WithinClass(cells)
    size = whole_trace - summaries[-1].trace
    values = torch.zeros(few, dtype=torch.float64)
    if within.rank:
        if isinstance(operator, Gram):
            values = top_of(knocked_out(operator, within.means.basis), few)
        else:
            values = top_values(operator.project_out(within.means), few, start[:, :few])
    summaries.insert(2, _summary("within_class", within.rank, size, whole_trace, values))
    residual = identity_residual(means.array, seed)
    return Decomposition(convention=convention, parts=tuple(summaries), residual=residual)


def _summary(
    name: str, rank: int, size: float, whole: float, top: Float[Tensor, " k"]
) -> PartSummary:
    return PartSummary(name=name, rank=rank, trace=size, share=size / whole, top=top)


def padded(values: Float[Tensor, " k"], count: int) -> Float[Tensor, " count"]:
    """The first so many, filled up with zeros.

    >>> padded(torch.tensor([2.0, 1.0]), 3)
    tensor([2., 1., 0.], dtype=torch.float64)
    """
    found = torch.zeros(count, dtype=torch.float64)
    found[: min(count, len(values))] = values[:count].double()
    return found


class _Complement(Projector):
    """I − P, off which what is left is P S P."""

    def __init__(self, part: MeanPart) -> None:
        super().__init__(part.size, part.dtype, part.device)
        self.part = part

    @property
    def rank(self) -> int:
        return self.size - self.part.rank

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return columns - self.part @ columns


def total_trace(operator: SymmetricOperator, seed: int) -> Estimate:
    """tr S = tr V: exact where S is formed, else estimated with its standard error."""
    if isinstance(operator, Gram):
        return exactly(operator.trace())
    return trace(operator, MATVECS_FOR_TRACE, seed=stream(seed, "trace"))


def exactly(value: float) -> Estimate:
    """A number that is no estimate."""
    return Estimate(value=value, standard_error=0.0, matvecs=0)


def identity_residual(array: ClassArray, seed: int) -> float:
    """‖(Σ parts − V) v‖/‖V v‖ for a random v of length d: Dᵀ(Σ P − I) D v, each P by itself."""
    rows = array.rows
    vector = torch.randn(rows.width, 1, generator=stream(seed, "identity"))
    seen = rows.matmul(vector.to(rows.device, rows.dtype))
    total = torch.zeros_like(seen, dtype=torch.float64)
    for name in PARTS:
        if name != "global_mean":
            total += array.projector(name).on_rows(seen)
    whole, summed = rows.rmatmul(torch.cat([seen, total.to(seen.dtype)], dim=1)).T
    size = float(whole.norm())
    return float((summed - whole).norm()) / size if size else 0.0
