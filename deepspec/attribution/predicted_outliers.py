"""Where the outliers of G are, predicted from means and a few products.

Let (ℓ_i, u_i) be the eigenpairs of G_means = G_class + G_cross + G_{c=c'}: the C² × C² Gram matrix
EᵀS E = Y diag(ℓ) Yᵀ of the cell means gives them, u_i = Dᵀ E y_i/√ℓ_i. G = G_means + G_within,
so λ is an eigenvalue of G above the spectrum of G_within exactly when

    det(diag(1/ℓ) − Uᵀ(λ − G_within)⁻¹ U) = 0.

* **means**: λ_i ≈ ℓ_i. Always too low: G_within ≥ 0.
* **first order**: ℓ_i + u_iᵀ G_within u_i.
* **root**: the diagonal of the determinant, 1/ℓ_i = ∫ dμ_i(x)/(λ − x), μ_i the spectral measure of
  G_within at u_i, from a Lanczos run started there. The u_i are taken one by one.
* **coupled**: the whole determinant, all u_i at once, G_within on the block Krylov space of the top
  C. By the same Schur complement these are the largest eigenvalues of S on span(E) plus that
  space, a Rayleigh–Ritz value: never too high, and better with every product.

(docs/theory.md §1, "Outliers beyond their means"; Papyan (2019) §6 leaves their deviation open.)
In S's coordinates, with z_i = P_within S E y_i/√ℓ_i (at no cost once S E is there),
u_iᵀ G_within u_i = ‖z_i‖² and ∫ dμ_i(x)/(λ − x) = (1 + z_iᵀ(λ − P_within S P_within)⁻¹ z_i)/λ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from deepspec.krylov import Tridiagonal, lanczos
from deepspec.operators import SymmetricOperator
from deepspec.storage.display import Result, Table, Tabular

COUPLED_STEPS = 4
METHODS = ("means", "first_order", "root", "coupled")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PredictedOutliers(Result, Tabular):
    """Predictions beside the truth, largest first.

    Attributes
    ----------
    true
        λ_i(G).
    class_only
        λ_i(G_class).
    means, first_order, root, coupled
        The predictions; NaN in ``root`` where there is none above the spectrum of G_within.
    matvecs_each
        Products with S (or G) that each outlier's prediction took, beside those for the means.
    matvecs_for_means
        What the Gram matrix of means cost, for all of them together.
    """

    true: Float[Tensor, " k"]
    class_only: Float[Tensor, " k"]
    means: Float[Tensor, " k"]
    first_order: Float[Tensor, " k"]
    root: Float[Tensor, " k"]
    coupled: Float[Tensor, " k"]
    matvecs_each: dict[str, int]
    matvecs_for_means: int

    @property
    def matvecs(self) -> int:
        """Products that all predictions took, those for the means included."""
        return self.matvecs_for_means + len(self.true) * sum(self.matvecs_each.values())

    def relative_error(self, method: str) -> Float[Tensor, " k"]:
        """Prediction over truth, less one."""
        predicted: Tensor = getattr(self, method)
        return predicted / self.true - 1

    def _words(self) -> list[str]:
        words = [f"{len(self.true)} eigenvalues"]
        for method in METHODS if len(self.true) else ():
            worst = float(self.relative_error(method).abs().nan_to_num(0.0).max())
            words.append(f"{method.replace('_', ' ')} to {worst:.2%}")
        return [*words, f"{self.matvecs:,} matvecs"]

    def _table(self) -> Table:
        return {name: getattr(self, name) for name in ("true", "class_only", *METHODS)}


def secular_root(level: float, weight: float, measure: Tridiagonal) -> float:
    """The largest λ with λ/ℓ = 1 + Σ_m weight·w_m/(λ − θ_m), by Brent's method.

    Left minus right grows from −∞ at the largest node to +∞, so there is exactly one root above.

    >>> none = Tridiagonal(
    ...     diagonal=torch.zeros(1),
    ...     off_diagonal=torch.zeros(0),
    ...     next_off_diagonal=0.0,
    ...     exhausted=True,
    ... )
    >>> round(secular_root(2.0, 3.0, none), 6)
    3.645751
    """
    nodes, weights = measure.ritz_values, measure.ritz_weights * weight

    def difference(value: float) -> float:
        return value / level - 1 - float((weights / (value - nodes)).sum())

    largest = float(nodes.max().clamp_min(0.0))
    low = largest + 1e-12 * (largest + level)
    high = largest + level + weight**0.5 * level**0.5 + weight
    while difference(high) < 0:
        high *= 2
    if difference(low) >= 0:
        return low
    return float(brentq(difference, low, high, xtol=1e-14 * high, rtol=1e-13))


def predict_outliers(
    gram: SymmetricOperator,
    within: SymmetricOperator,
    basis: Float[Tensor, "m r"],
    image: Float[Tensor, "m r"],
    true: Float[Tensor, " k"],
    class_only: Float[Tensor, " k"],
    edge: float,
    *,
    steps: int = 8,
) -> PredictedOutliers:
    """Predict as many outliers of G as there are true ones to compare with.

    Parameters
    ----------
    gram, within
        S, and P_within S P_within.
    basis, image
        E, orthonormal columns that span the cell means, and S E.
    true, class_only
        The top eigenvalues of G and of G_class.
    edge
        The largest eigenvalue of G_within. Where even the first order lies below it, the u_i does
        not stick out, and there is no root to be had.
    steps
        Products for each root.
    """
    wide = basis.double().T @ image.double()
    levels, turn = torch.linalg.eigh((wide + wide.T) / 2)
    levels, turn = levels.flip(0), turn.flip(1)
    count = min(len(true), int((levels > 1e-9 * float(levels[0])).sum()))
    levels, turn = levels[:count], turn[:, :count]
    seen = image.double() @ turn
    beyond = seen - basis.double() @ (basis.double().T @ seen)
    z = beyond / levels.sqrt()
    weight = z.square().sum(dim=0)
    root = torch.full((count,), torch.nan, dtype=torch.float64)
    for i in range(count):
        if float(weight[i]) <= 1e-14 * float(levels[i]):
            root[i] = levels[i]
            continue
        if float(levels[i] + weight[i]) < edge:
            continue
        run = lanczos(within, steps, z[:, i].to(gram.dtype).contiguous(), "full")
        root[i] = secular_root(float(levels[i]), float(weight[i]), run)
    used = min(COUPLED_STEPS, steps)
    coupled = coupled_values(gram, basis, image, beyond, used, count)
    return PredictedOutliers(
        true=true[:count].double().cpu(),
        class_only=class_only[:count].double().cpu(),
        means=levels.cpu(),
        first_order=(levels + weight).cpu().sort(descending=True).values,
        root=_descending(root),
        coupled=coupled,
        matvecs_each={"means": 0, "first_order": 0, "root": steps, "coupled": used},
        matvecs_for_means=basis.shape[1],
    )


def _descending(values: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Sorted, what is missing last."""
    return (
        values.nan_to_num(-torch.inf)
        .sort(descending=True)
        .values.masked_fill(values.isnan().sort().values, torch.nan)
    )


def coupled_values(
    gram: SymmetricOperator,
    basis: Float[Tensor, "m r"],
    image: Float[Tensor, "m r"],
    block: Float[Tensor, "m k"],
    steps: int,
    count: int,
) -> Float[Tensor, " count"]:
    """Top eigenvalues of S on span(E) plus the block Krylov space of G_within, q products each."""
    space, images = basis.double(), image.double()
    for _ in range(steps):
        block = _orthonormal_off(space, block)
        if not block.shape[1]:
            break
        following = (gram @ block.to(gram.dtype)).double()
        space = torch.cat([space, block], dim=1)
        images = torch.cat([images, following], dim=1)
        block = following
    matrix = space.T @ images
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)[:count]
    return values.cpu()


def _orthonormal_off(
    space: Float[Tensor, "m r"], block: Float[Tensor, "m k"]
) -> Float[Tensor, "m j"]:
    """An orthonormal basis of what a block adds to a space."""
    for _ in range(2):
        block = block - space @ (space.T @ block)
    left, singular, _ = torch.linalg.svd(block, full_matrices=False)
    left = left[:, singular > 1e-10 * singular[:1]]
    return left - space @ (space.T @ left)
