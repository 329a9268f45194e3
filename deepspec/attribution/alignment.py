"""Angles between eigenvectors and the spans that are said to cause them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.measurement import Measurement
from deepspec.class_structure.parts import BetweenClass, CrossClass
from deepspec.problem import Problem
from deepspec.storage.display import Result, Table, Tabular


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Alignment(Result, Tabular):
    """Cosines of principal angles in parameter space, largest first, k = C.

    Attributes
    ----------
    cosines
        For each pair of spaces: "G and class means", "G and cross-class means",
        "Hess and class means", "Hess and cross-class means", "G and Hess".
    gradient_share
        ‖P ∇‖²/‖∇‖² for the loss gradient ∇ and P onto the top C eigenvectors of "G" and "Hess"
        (Gur-Ari et al. 2018, as Papyan (2019) §1 cites), and onto the "class means".
    chance
        √(k/p), about the cosine of k-dimensional random subspaces.
    """

    cosines: dict[str, Float[Tensor, " k"]]
    gradient_share: dict[str, float]
    chance: float

    def _words(self) -> list[str]:
        shares = [f"{pair}: {mean_square(cos):.0%}" for pair, cos in self.cosines.items()]
        return [*shares, f"by chance {self.chance**2:.1%}"]

    def _table(self) -> Table:
        return {
            "spaces": list(self.cosines),
            "share inside": [mean_square(cosines) for cosines in self.cosines.values()],
        }


def mean_square(cosines: Float[Tensor, " k"]) -> float:
    """The share of one space that lies in the other, Σ cos²/k.

    >>> mean_square(torch.tensor([1.0, 0.0]))
    0.5
    """
    return float(cosines.double().square().mean()) if len(cosines) else float("nan")


def principal_cosines(
    left: Float[Tensor, "k k"], right: Float[Tensor, "r r"], between: Float[Tensor, "k r"]
) -> Float[Tensor, " j"]:
    """Cosines of the principal angles of span(X) and span(Y) from XᵀX, YᵀY and XᵀY.

    >>> one = torch.eye(1, dtype=torch.float64)
    >>> principal_cosines(one, one, 0.5 * one)
    tensor([0.5000], dtype=torch.float64)
    """
    core = _inverse_root(left).T @ between.double() @ _inverse_root(right)
    if 0 in core.shape:
        return torch.zeros(0, dtype=torch.float64)
    return torch.linalg.svdvals(core).clamp(0.0, 1.0).cpu()


def share_inside(gram: Float[Tensor, "k k"], products: Float[Tensor, " k"], square: float) -> float:
    """‖P v‖²/‖v‖², P onto span(X), from XᵀX, Xᵀv and ‖v‖².

    >>> share_inside(torch.eye(1, dtype=torch.float64), torch.ones(1), 4.0)
    0.25
    """
    if square <= 0:
        return float("nan")
    return float((_inverse_root(gram).T @ products.double()).square().sum()) / square


def measure_alignment(
    measured: Measurement,
    problem: Problem,
    of_hessian: Float[Tensor, "p k"],
    seen: Float[Tensor, "m k"],
    of_g: Float[Tensor, "p k"],
) -> Alignment:
    """Everything from D U and D V: the means themselves are never formed.

    Parameters
    ----------
    of_hessian, seen
        The top eigenvectors U of Hess, and D U.
    of_g
        Those of G, V.
    """
    means, rows = measured.means, measured.array.rows
    rows_g, rows_h = _seen(measured, of_g), seen.double()
    inner_g, inner_h = (of_g.T @ of_g).double(), (of_hessian.T @ of_hessian).double()
    cosines: dict[str, Tensor] = {}
    gradient = problem.gradient()
    rows_gradient = rows.matmul(gradient[:, None]).double()
    square = float(gradient.double().square().sum())
    shares = {
        "G": share_inside(inner_g, of_g.T @ gradient, square),
        "Hess": share_inside(inner_h, of_hessian.T @ gradient, square),
    }
    cells = measured.array.cells
    spans = {"class means": BetweenClass(cells), "cross-class means": CrossClass(cells)}
    for words, part in spans.items():
        small = means.inside(part)
        if small is None:
            continue
        basis = part.basis
        cosines[f"G and {words}"] = principal_cosines(inner_g, small, rows_g.T @ basis)
        cosines[f"Hess and {words}"] = principal_cosines(inner_h, small, rows_h.T @ basis)
        if words == "class means":
            shares[words] = share_inside(small, (basis.T @ rows_gradient)[:, 0], square)
    cosines["G and Hess"] = principal_cosines(inner_g, inner_h, of_g.T @ of_hessian)
    chance = math.sqrt(min(1.0, measured.count / problem.size))
    return Alignment(cosines=cosines, gradient_share=shares, chance=chance)


def _seen(measured: Measurement, of_g: Float[Tensor, "p k"]) -> Float[Tensor, "m k"]:
    """D v_i for the top eigenvectors of G: √λ_i s_i where these are exact."""
    if not measured.exact:
        return measured.array.rows.matmul(of_g).double()
    values, vectors = measured.pairs.values, measured.pairs.vectors
    count = of_g.shape[1]
    return (vectors[:, :count] * values[:count].sqrt()).double()


def _inverse_root(gram: Float[Tensor, "k k"]) -> Float[Tensor, "k j"]:
    """R with RᵀXᵀX R = I on the span, dependent columns left out."""
    wide = gram.double()
    values, vectors = torch.linalg.eigh((wide + wide.T) / 2)
    kept = values > 1e-10 * values[-1:].abs()
    return vectors[:, kept] / values[kept].sqrt()
