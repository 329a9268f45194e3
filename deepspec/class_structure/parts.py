"""The parts of G as orthogonal projectors: a two-way analysis of variance with weights.

In the coordinates of :class:`~deepspec.attribution.gradient_gram.GradientGram` the mean gradient
of a cell (c, c') is √w_{c,c'} g_{c,c'} = Dᵀ a_{c,c'} with the a_{c,c'} orthonormal:
(a_{c,c'})_{i,c'} = √π_{i,c'} on the samples i of class c. Class means, deviations from them, the
own-class means and the rest span orthogonal subspaces, whose projectors P add up to I, and

    G_class = DᵀP_class D,  G_cross = DᵀP_cross D,  G_{c=c'} = DᵀP_own D,  G_within = DᵀP_within D,

which is [002] eq. 6.4 (or [000] eq. 28, with [000]'s shares). The global mean
g_G = Σ_c w_c g_c / Σ_c w_c ([002] Definition 1.7) is one more direction, inside the class means.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepspec.class_structure.weights import Convention, CrossClassWeights, cross_class_weights
from deepspec.operators import Projector
from deepspec.problem import Problem


@dataclass(frozen=True, eq=False)
class CellFrame:
    """The orthonormal vectors a_{c,c'}, one for each cell that holds any weight.

    Attributes
    ----------
    root_share
        √π_{i,c'}.
    labels
        Class c of each sample.
    root_row_share
        √π_{c,c'}, the share of cell (c, c') in class mean c; zero on the diagonal.
    root_class_share
        √(w_c/Σw), the share of class mean c in the global mean.
    occupied
        Cells that hold any weight.
    weights
        w_{c,c'}.
    dtype
        Of the vectors.
    """

    root_share: Float[Tensor, "n C"]
    labels: Int[Tensor, " n"]
    root_row_share: Float[Tensor, "C C"]
    root_class_share: Float[Tensor, " C"]
    occupied: Bool[Tensor, "C C"]
    weights: Float[Tensor, "C C"]
    dtype: torch.dtype

    def coordinates(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "C C k"]:
        """⟨a_{c,c'}, x⟩ for every cell, float64."""
        shaped = columns.double().reshape(*self.root_share.shape, -1)
        found = shaped.new_zeros(*self.occupied.shape, shaped.shape[2])
        return found.index_add_(0, self.labels, self.root_share[:, :, None] * shaped)

    def combination(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "m k"]:
        """Σ cells_{c,c'} a_{c,c'}."""
        spread = self.root_share[:, :, None] * cells[self.labels]
        return spread.reshape(self.root_share.numel(), cells.shape[2]).to(self.dtype)

    def cells(self) -> list[tuple[int, int]]:
        """The occupied cells (c, c'), row by row."""
        return [(c, other) for c, other in self.occupied.nonzero().tolist()]

    def vectors(self) -> Float[Tensor, "m r"]:
        """a_{c,c'} of the occupied cells as columns."""
        places = self.occupied.nonzero()
        cells = torch.zeros(*self.occupied.shape, len(places), dtype=torch.float64)
        cells = cells.to(places.device)
        cells[places[:, 0], places[:, 1], torch.arange(len(places))] = 1.0
        return self.combination(cells)


def cell_frame(
    problem: Problem,
    convention: Convention = "jmlr2020",
    labels: Int[Tensor, " n"] | None = None,
) -> CellFrame:
    """The frame of a problem's cell means; with other labels, of the same logits under those."""
    chosen = problem.labels if labels is None else labels
    weights: CrossClassWeights = cross_class_weights(problem.log_probabilities, chosen, convention)
    total = weights.row.sum()
    share = weights.row / total if float(total) > 0 else weights.row
    return CellFrame(
        weights.share.sqrt(),
        chosen,
        weights.row_share.sqrt(),
        share.sqrt(),
        weights.cell > 0,
        weights.cell,
        problem.dtype,
    )


class Part(Projector):
    """One part's projector, in closed form: no basis is stored."""

    name: ClassVar[str]

    def __init__(self, frame: CellFrame) -> None:
        self.frame = frame

    @property
    def size(self) -> int:
        return self.frame.root_share.numel()

    @property
    def dtype(self) -> torch.dtype:
        return self.frame.dtype

    @property
    def device(self) -> torch.device:
        return self.frame.root_share.device

    @abstractmethod
    def on_cells(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        """The projection of what is given by its coordinates in the frame."""

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.frame.combination(self.on_cells(self.frame.coordinates(columns)))

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"operator": self.name, "rank": self.rank, "size": self.size}

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """Orthonormal columns that span it."""
        frame = self.frame
        places = frame.occupied.nonzero()
        count = len(places)
        cells = torch.zeros(*frame.occupied.shape, count, dtype=torch.float64, device=self.device)
        cells[places[:, 0], places[:, 1], torch.arange(count)] = 1.0
        small = self.on_cells(cells)[places[:, 0], places[:, 1]]
        values, vectors = torch.linalg.eigh((small + small.T) / 2)
        chosen = vectors[:, values > 0.5]
        cells = torch.zeros(
            *frame.occupied.shape, chosen.shape[1], dtype=torch.float64, device=self.device
        )
        cells[places[:, 0], places[:, 1]] = chosen
        return frame.combination(cells)


class BetweenClass(Part):
    """P_class: the class means g_c ([002] §6; G1 of [000] eq. 28)."""

    name = "between_class"

    @property
    def rank(self) -> int:
        return int((self.frame.root_row_share > 0).any(dim=1).sum())

    def on_cells(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        root = self.frame.root_row_share[:, :, None]
        return root * (root * cells).sum(dim=1, keepdim=True)

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """The directions of the class means g_c."""
        root = self.frame.root_row_share
        cells = torch.diag_embed(root.T).permute(1, 0, 2)
        return self.frame.combination(cells[:, :, (root > 0).any(dim=1)])


class CrossClass(Part):
    """P_cross: deviations of the g_{c,c'}, c' ≠ c, from g_c (G2 of [000] eq. 28)."""

    name = "cross_class"

    def __init__(self, frame: CellFrame) -> None:
        super().__init__(frame)
        self.between = BetweenClass(frame)

    @property
    def rank(self) -> int:
        return int((self.frame.root_row_share > 0).sum()) - self.between.rank

    def on_cells(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        others = torch.where(self.frame.root_row_share[:, :, None] > 0, cells, 0.0)
        return others - self.between.on_cells(cells)


class OwnClass(Part):
    """P_own: the mean gradients g_{c,c} of each class's own label (G0 of [000] eq. 28)."""

    name = "own_class"

    @property
    def rank(self) -> int:
        return int(self.frame.occupied.diagonal().sum())

    def on_cells(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        own = torch.eye(cells.shape[0], dtype=cells.dtype, device=cells.device)
        return own[:, :, None] * cells

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """The directions of the own-class means g_{c,c}."""
        there = self.frame.occupied.diagonal()
        own = torch.eye(len(there), dtype=torch.float64, device=self.device)
        return self.frame.combination((own[:, :, None] * own[:, None, :])[:, :, there])


class GlobalMean(Part):
    """P_global: the one direction of g_G = Σ_c w_c g_c / Σ_c w_c ([002] Definition 1.7)."""

    name = "global_mean"

    @property
    def rank(self) -> int:
        return int((self.frame.root_class_share > 0).any())

    def on_cells(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        frame = self.frame
        direction = (frame.root_class_share[:, None] * frame.root_row_share)[:, :, None]
        return direction * (direction * cells).sum(dim=(0, 1))

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """The direction of the global mean."""
        frame = self.frame
        direction = (frame.root_class_share[:, None] * frame.root_row_share)[:, :, None]
        return frame.combination(direction[:, :, : self.rank])


class Means(Part):
    """P_class + P_cross + P_own: every cell mean (G1+2 of [000] eq. 23)."""

    name = "means"

    @property
    def rank(self) -> int:
        return int(self.frame.occupied.sum())

    def on_cells(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        return cells


class Complement(Projector):
    """I − P. Compressing S off it leaves P S P; off P_means' it is P_within."""

    def __init__(self, projector: Projector) -> None:
        self.projector = projector

    @property
    def rank(self) -> int:
        return self.size - self.projector.rank

    @property
    def size(self) -> int:
        return self.projector.size

    @property
    def dtype(self) -> torch.dtype:
        return self.projector.dtype

    @property
    def device(self) -> torch.device:
        return self.projector.device

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return columns - self.projector @ columns


def within_class(frame: CellFrame) -> Complement:
    """P_within = I − P_means: scatter about the cell means (G3 of [000] eq. 23)."""
    return Complement(Means(frame))


def named_parts(frame: CellFrame) -> dict[str, Part]:
    """The parts that are made of means, by the names of :class:`deepspec.ClassStructure`."""
    kinds = (BetweenClass, CrossClass, OwnClass)
    return {kind.name: kind(frame) for kind in kinds}
