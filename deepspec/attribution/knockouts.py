"""Knockouts (Papyan 2020, Definitions 3.1–3.3), and how much of a feature one removes.

On the row side (:mod:`deepspec.class_structure.parts`), with S = D Dᵀ:

* subtraction, V − V_P with V_P = DᵀPD: the eigenvalues of (I − P) S (I − P);
* projection, V ⊘ V_P = (I − Π) V (I − Π), Π onto the range of DᵀE with P = E Eᵀ: the eigenvalues
  of the Schur complement S − S E (EᵀS E)⁺ EᵀS.

A Schur complement is at most the block it belongs to, so each eigenvalue after a projection is at
most that after a subtraction: subtraction is the more demanding of the two. Where S is formed both
are exact (:meth:`deepspec.ClassArray.knock_out`); here is what they take where it is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.downdate import Downdate
from deepspec.class_structure.gram import Gram, schur_factor
from deepspec.class_structure.parts import MeanPart
from deepspec.krylov import Eigenpairs, top_eigenpairs
from deepspec.operators import SymmetricOperator
from deepspec.storage.display import Result, Table, Tabular

LOOSE, TIGHT = 1e-3, 1e-7
# All eigenvalues of a matrix cost less than a few of them where it is no larger, or they are many.
DENSE_UP_TO, FEW_OF_MANY = 2000, 20


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Knockout(Result, Tabular):
    """The top eigenvalues of G with one part knocked out, both ways.

    Attributes
    ----------
    part, rank
        Its name, and its dimension.
    subtracted, projected
        What is left; NaN in the second where the projection was not measured.
    """

    part: str
    rank: int
    subtracted: Float[Tensor, " k"]
    projected: Float[Tensor, " k"]

    def _words(self) -> list[str]:
        words = [f"{self.part} of rank {self.rank:,}"]
        for how, values in (("subtracted", self.subtracted), ("projected out", self.projected)):
            if len(values) and not bool(values.isnan().any()):
                words.append(f"largest left {float(values[0]):.4g} when {how}")
        return words

    def _table(self) -> Table:
        both = {"subtracted": self.subtracted.tolist(), "projected": self.projected.tolist()}
        length = max(map(len, both.values()))
        return {how: v + [math.nan] * (length - len(v)) for how, v in both.items()}


class SchurComplement(SymmetricOperator):
    """S − Y (EᵀY)⁺ Yᵀ, Y = S E: what is left of V once the range of DᵀE is projected out.

    Parameters
    ----------
    operator
        S.
    basis, image
        E with orthonormal columns, and S E.

    >>> from deepspec.operators import MatrixOperator
    >>> S = MatrixOperator(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> E = torch.tensor([[1.0], [0.0]])
    >>> SchurComplement(S, E, S @ E).to_dense().numpy().round(3) + 0.0
    array([[0. , 0. ],
           [0. , 1.5]], dtype=float32)
    """

    def __init__(
        self,
        operator: SymmetricOperator,
        basis: Float[Tensor, "m r"],
        image: Float[Tensor, "m r"],
    ) -> None:
        super().__init__(operator.size, operator.dtype, operator.device)
        self.operator = operator
        self.factor = schur_factor(basis, image, operator.dtype).to(operator.dtype)

    def prepare(self, matvecs: int) -> None:
        self.operator.prepare(matvecs)

    def describe(self) -> str:
        return f"Schur complement off {self.factor.shape[1]} means"

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.operator @ columns - self.factor @ (self.factor.T @ columns)


def top_of(left: Downdate, count: int) -> Float[Tensor, " count"]:
    """The largest eigenvalues of what a knockout leaves, filled up with zeros; exact.

    Of a large matrix by Lanczos, at r numbers a row for each product, to a residual of 1e-7 of
    each eigenvalue, and so to 1e-14 over the gap; that none was passed over is then counted
    (:meth:`Downdate.count_above`), and all of them computed should one have been.
    """
    found = torch.zeros(count, dtype=torch.float64)
    if left.size > DENSE_UP_TO and FEW_OF_MANY * count < left.size:
        start = torch.eye(left.size, 2 * count).to(left.values)
        values = top_eigenpairs(left, count, tol=TIGHT, start=start).values
        above = float(values[-1]) + 10 * TIGHT * float(values[0])
        if left.count_above(above) == int((values > above).sum()):
            found[: len(values)] = values.cpu()
            return found
    values = left.eigenvalues()[:count].cpu()
    found[: len(values)] = values
    return found


def top_values(
    operator: SymmetricOperator,
    count: int,
    start: Float[Tensor, "m k"] | None = None,
    tol: float = LOOSE,
) -> Float[Tensor, " count"]:
    """The largest eigenvalues, float64, filled up with zeros where there are fewer.

    Residuals are at most ``tol`` (a thousandth) of each eigenvalue λ, so that λ is good to about
    tol² (a millionth) of itself over its relative gap.
    """
    if count < 1:
        return torch.zeros(0, dtype=torch.float64)
    if start is not None and float(start.abs().max()) == 0.0:
        start = None
    if start is not None:
        start = start.to(operator.dtype)
    pairs = top_eigenpairs(operator, count, tol=tol, start=start)
    found = torch.zeros(count, dtype=torch.float64)
    found[: len(pairs.values)] = pairs.values.double().cpu()
    return found


def recycled_values(
    operator: SymmetricOperator, part: MeanPart, pairs: Eigenpairs, count: int
) -> Float[Tensor, " count"]:
    """Lower bounds on the top eigenvalues of (I − P) S (I − P), from the known eigenvectors of S.

    Rayleigh–Ritz on (I − P) V at the price of S P V, rank-many products at most. What a knockout
    removes is overestimated, which is on the safe side for a null.
    """
    wide = pairs.vectors.double()
    lost = part.on_rows(wide)
    if part.rank < wide.shape[1]:
        image = times(operator, part.basis) @ (part.basis.T @ wide)
    else:
        image = times(operator, lost)
    return ritz(wide - lost, wide * pairs.values.double() - image, count)


def times(operator: SymmetricOperator, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
    """S X in float64, exactly so where S is formed."""
    if isinstance(operator, Gram):
        return operator.times(columns)
    return (operator @ columns.to(operator.dtype)).double()


def ritz(
    columns: Float[Tensor, "m k"], images: Float[Tensor, "m k"], count: int
) -> Float[Tensor, " count"]:
    """The largest Ritz values on a span, from columns X and A X; filled up with zeros."""
    weight = columns.T @ columns
    matrix = columns.T @ images
    sizes, turn = torch.linalg.eigh((weight + weight.T) / 2)
    kept = sizes > 1e-6 * float(sizes.max())
    turn = turn[:, kept] / sizes[kept].sqrt()
    values = torch.linalg.eigvalsh(turn.T @ ((matrix + matrix.T) / 2) @ turn).flip(0).cpu()
    found = torch.zeros(count, dtype=torch.float64)
    found[: min(count, len(values))] = values[:count]
    return found


def removed_share(
    before: Float[Tensor, " k"],
    after: Float[Tensor, " k"],
    first: int,
    count: int,
    rank: int,
    beyond: float = 0.0,
) -> float:
    """The share of what a knockout of this rank can remove at most, that it does remove.

    R = Σ_i (λ_i − λ_i') / Σ_i (λ_i − λ_{i+r}), i over ``count`` places after the ``first``: by
    Weyl (for a projection, Cauchy) no knockout of rank r brings λ_i' below λ_{i+r}, so R lies in
    [0, 1]: 0 when nothing happens, 1 when the features' places are taken by the next eigenvalues.
    Where λ_{i+r} is beyond the list, ``beyond`` stands in: with zero R is what is removed at least,
    with the list's last value what is removed at most.

    >>> removed_share(torch.tensor([9.0, 2.0, 1.0]), torch.tensor([2.0, 1.0]), 0, 1, 1)
    1.0
    >>> round(removed_share(torch.tensor([9.0, 2.0, 1.0]), torch.tensor([1.0, 0.0]), 0, 1, 5), 3)
    0.889
    >>> removed_share(torch.tensor([9.0, 2.0, 1.0]), torch.tensor([1.0, 0.0]), 0, 1, 5, beyond=1.0)
    1.0
    """
    if count < 1 or rank < 1:
        return float("nan")
    places = torch.arange(first, first + count)
    longer = torch.cat([before, before.new_full((first + count + rank,), beyond)])
    at_most = before[places] - longer[places + rank]
    total = float(at_most.sum())
    if total <= 0:
        return float("nan")
    return min(1.0, max(0.0, float((before[places] - after[places]).sum()) / total))
