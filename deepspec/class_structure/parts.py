"""The parts of a second moment as orthogonal projectors: an analysis of variance with weights.

On the row side (:mod:`deepspec.class_structure.cells`) class means, deviations of cross-class means
from them, own-class means and the rest span orthogonal subspaces, whose projectors P add up to I:

    V_class = DᵀP_class D,  V_cross = DᵀP_cross D,  V_{c=c'} = DᵀP_own D,  V_within = DᵀP_within D,

which is Papyan (2020) eq. 6.4, or Papyan (2019) eq. 28 with that paper's weights. The global mean
Σ_c w_c v_c / Σ_c w_c (Papyan 2020, Definition 1.7) is one more direction, inside the class means.
A subtraction knockout V − DᵀPD has the nonzero eigenvalues of (I − P) S (I − P), S = D Dᵀ.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import is_one_of, shown
from deepspec.class_structure.cells import Cells
from deepspec.operators import Projector

# What may be knocked out, in the order in which tables and figures have them.
PARTS = ("global_mean", "between_class", "cross_class", "within_class", "own_class")


class Part(Projector):
    """One part's projector on the rows, in closed form: no basis is stored."""

    name: ClassVar[str]

    def __init__(self, cells: Cells) -> None:
        super().__init__(cells.size, cells.dtype, cells.share.device)
        self.cells = cells

    def describe(self) -> str:
        return f"P_{self.name}"

    @abstractmethod
    def on_rows(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """P X in float64."""

    @abstractmethod
    def shares(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, " k"]:
        """‖P x‖² of each column, float64."""

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.on_rows(columns).to(columns.dtype)

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"operator": self.name, "rank": self.rank, "size": self.size}


class MeanPart(Part):
    """A part inside the span of the cell means."""

    @abstractmethod
    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        """The projection of what is given by its coordinates in the cells."""

    def on_rows(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.cells.combination(self.on_cells(self.cells.coordinates(columns)))

    def shares(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, " k"]:
        return (self.basis.T @ columns.double()).square().sum(dim=0)

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """Orthonormal columns that span it, float64."""
        places, units = self.cells.places, self.cells.units()
        small = self.on_cells(units)[places[:, 0], places[:, 1]]
        values, vectors = torch.linalg.eigh((small + small.T) / 2)
        return self.cells.combination(units @ vectors[:, values > 0.5])


class BetweenClass(MeanPart):
    """P_class: the class means v_c (Papyan 2020, §6; G1 of Papyan 2019, eq. 28)."""

    name = "between_class"

    @property
    def rank(self) -> int:
        return int((self.cells.row_share > 0).any(dim=1).sum())

    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        root = self.cells.root_row_share[:, :, None]
        return root * (root * cells).sum(dim=1, keepdim=True)

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """The directions of the class means v_c, one for each class that has any."""
        root = self.cells.root_row_share
        entries = self.cells.root_share * root[self.cells.labels]
        return self.cells.by_class(entries, (root > 0).any(dim=1))


class CrossClass(MeanPart):
    """P_cross: deviations of the v_{c,c'}, c' ≠ c, from v_c (G2 of Papyan 2019, eq. 28)."""

    name = "cross_class"

    def __init__(self, cells: Cells) -> None:
        super().__init__(cells)
        self._between = BetweenClass(cells)

    @property
    def rank(self) -> int:
        return int((self.cells.row_share > 0).sum()) - self._between.rank

    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        others = torch.where(self.cells.row_share[:, :, None] > 0, cells, 0.0)
        return others - self._between.on_cells(cells)


class OwnClass(MeanPart):
    """P_own: the means v_{c,c} of each class's own label (G0 of Papyan 2019, eq. 28)."""

    name = "own_class"

    @property
    def rank(self) -> int:
        return int((self.cells.occupied & self.cells.own).sum())

    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        return self.cells.own[:, :, None] * cells

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """The directions of the own-class means v_{c,c}."""
        entries = self.cells.root_share * self.cells.own[self.cells.labels]
        return self.cells.by_class(entries, (self.cells.occupied & self.cells.own).any(dim=1))


class GlobalMean(MeanPart):
    """P_global: the one direction of Σ_c w_c v_c / Σ_c w_c (Papyan 2020, Definition 1.7)."""

    name = "global_mean"

    @property
    def rank(self) -> int:
        return int((self.cells.root_class_share > 0).any())

    @property
    def _direction(self) -> Float[Tensor, "C K 1"]:
        return (self.cells.root_class_share[:, None] * self.cells.root_row_share)[:, :, None]

    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        return self._direction * (self._direction * cells).sum(dim=(0, 1))

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """The direction of the global mean."""
        return self.cells.combination(self._direction[:, :, : self.rank])


class CellMeans(MeanPart):
    """P_class + P_cross + P_own: every cell mean (G1+2 of Papyan 2019, eq. 23)."""

    name = "means"

    @property
    def rank(self) -> int:
        return len(self.cells.places)

    def on_cells(self, cells: Float[Tensor, "C K k"]) -> Float[Tensor, "C K k"]:
        return cells

    @cached_property
    def basis(self) -> Float[Tensor, "m r"]:
        """a_{c,c'} of the occupied cells, in the order of ``cells.places``."""
        return self.cells.combination(self.cells.units())


class WithinClass(Part):
    """P_within = I − P_means: scatter about the cell means (G3 of Papyan 2019, eq. 23)."""

    name = "within_class"

    def __init__(self, cells: Cells) -> None:
        super().__init__(cells)
        self.means = CellMeans(cells)

    @property
    def rank(self) -> int:
        return self.size - self.means.rank

    def on_rows(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return columns.double() - self.means.on_rows(columns)

    def shares(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, " k"]:
        wide = columns.double()
        return (wide.square().sum(dim=0) - self.means.shares(wide)).clamp_min(0.0)


KINDS: dict[str, type[Part]] = {
    kind.name: kind
    for kind in (GlobalMean, BetweenClass, CrossClass, WithinClass, OwnClass, CellMeans)
}


def part(cells: Cells, name: str) -> Part:
    """A part's projector by its name.

    Raises
    ------
    ValueError
        If there is no such part; the error lists those that there are.
    """
    if not is_one_of(name, KINDS):
        raise ValueError(f"expected a part, one of {', '.join(KINDS)}; got {shown(name)}")
    return KINDS[name](cells)
