"""How the C² mean gradients split into an effect of c, one of c', and their interaction."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_numbers, shown
from deepspec.storage.display import Result, Table, Tabular


@dataclass(frozen=True, repr=False, kw_only=True)
class TwoWayLayout(Result, Tabular):
    """Shares of Σ_{c≠c'} w_{c,c'} ‖g_{c,c'} − g_G‖², a two-way layout without its diagonal.

    The layout is incomplete and its weights differ, so what c and c' explain overlaps:
    ``by_class + by_cross_class + shared + interaction = 1``.

    Attributes
    ----------
    class_alone, cross_class_alone
        What class means, or the means over c for each c', explain by themselves.
    by_class, by_cross_class
        What each adds to the other (the gain of the additive fit over the other factor alone).
    shared
        What either would explain; negative where each helps the other.
    interaction
        What no sum of an effect of c and one of c' explains.
    total
        The sum of squares itself.
    """

    class_alone: float
    cross_class_alone: float
    by_class: float
    by_cross_class: float
    shared: float
    interaction: float
    total: float

    def _words(self) -> list[str]:
        shares = f"c {self.by_class:.0%}, c' {self.by_cross_class:.0%}, either {self.shared:.0%}"
        return [shares, f"interaction {self.interaction:.0%}", f"of {self.total:.4g}"]

    def _table(self) -> Table:
        return {
            "effect": ["class", "cross-class", "interaction"],
            "alone": [self.class_alone, self.cross_class_alone, self.interaction],
            "added": [self.by_class, self.by_cross_class, self.interaction],
        }

    @classmethod
    def _without_effects(cls, share: float, total: float) -> TwoWayLayout:
        names = [f.name for f in fields(cls) if f.name != "total"]
        return cls(total=total, **dict.fromkeys(names, share))


def _is_cell(cell: object) -> bool:
    return isinstance(cell, tuple | list) and len(cell) == 2


def two_way_layout(
    gram: Float[Tensor, "r r"], weights: Float[Tensor, " r"], cells: list[tuple[int, int]]
) -> TwoWayLayout:
    """The layout's shares from the Gram matrix of the weighted means alone.

    Parameters
    ----------
    gram
        ⟨√w g, √w g⟩ of the cells.
    weights
        w_{c,c'}, in the same order.
    cells
        (c, c'); those with c = c' are left out.

    >>> gram = torch.eye(2, dtype=torch.float64)
    >>> layout = two_way_layout(gram, torch.ones(2), [(0, 1), (1, 0)])
    >>> layout.class_alone, layout.interaction
    (1.0, 0.0)
    """
    check_numbers(gram, ("r", "r"), "the Gram matrix")
    check_numbers(weights, (len(gram),), "weights")
    if not isinstance(cells, list | tuple) or not all(map(_is_cell, cells)):
        raise TypeError(f"expected cells as a list of pairs (c, c'), got {shown(cells)}")
    if gram.shape[1] != len(gram) or len(cells) != len(gram):
        raise ValueError(
            f"expected a square Gram matrix and one cell for each row, got {shown(gram)} and "
            f"{len(cells)} cells"
        )
    places = [i for i, (c, other) in enumerate(cells) if c != other]
    if len(places) < 2:
        return TwoWayLayout._without_effects(float("nan"), 0.0)
    chosen = torch.tensor(places)
    matrix = gram.double().cpu()[chosen][:, chosen]
    root = weights.double().cpu()[chosen].sqrt()
    rows = _indicators([cells[i][0] for i in places])
    columns = _indicators([cells[i][1] for i in places])

    def explained(design: Tensor) -> float:
        left, singular, _ = torch.linalg.svd(root[:, None] * design, full_matrices=False)
        basis = left[:, singular > 1e-10 * singular[0]]
        return float(((matrix @ basis) * basis).sum())

    mean = explained(torch.ones(len(places), 1, dtype=torch.float64))
    total = float(matrix.trace()) - mean
    if total <= 1e-12 * abs(mean):
        return TwoWayLayout._without_effects(0.0, max(total, 0.0))
    by_row = (explained(rows) - mean) / total
    by_column = (explained(columns) - mean) / total
    additive = (explained(torch.cat([rows, columns], dim=1)) - mean) / total
    return TwoWayLayout(
        class_alone=by_row,
        cross_class_alone=by_column,
        by_class=additive - by_column,
        by_cross_class=additive - by_row,
        shared=by_row + by_column - additive,
        interaction=max(0.0, 1 - additive),
        total=total,
    )


def _indicators(levels: list[int]) -> Float[Tensor, "r l"]:
    index = torch.tensor(levels)
    hot = torch.nn.functional.one_hot(index).double()
    return hot[:, hot.sum(dim=0) > 0]
