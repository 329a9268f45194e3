"""How well mean gradients are products of mean features and mean errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.cells import Cells, weigh_gradients
from deepspec.storage.display import Result

if TYPE_CHECKING:
    from deepspec.layerwise.layer import Layer


# What is taken of all classes at once.
BYTES_AT_ONCE = 2**28


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class MeanProducts(Result):
    """h_c ⊗ δ_{c,c'} beside g_{c,c'} for every cell, NaN where a cell is empty.

    Attributes
    ----------
    layer
        Of which layer.
    cosine, relative_error
        (C, C): of the two, and ‖g_{c,c'} − h_c ⊗ δ_{c,c'}‖/‖g_{c,c'}‖.
    class_cosine, class_relative_error
        (C,): the same of h_c ⊗ δ_c and g_c.
    weights
        w_{c,c'}, how much a cell counts in G.
    """

    layer: str
    cosine: Float[Tensor, "C C"]
    relative_error: Float[Tensor, "C C"]
    class_cosine: Float[Tensor, " C"]
    class_relative_error: Float[Tensor, " C"]
    weights: Float[Tensor, "C C"]

    def _words(self) -> list[str]:
        cells, classes = self.cosine.nanmedian(), self.class_cosine.nanmedian()
        return [
            f"{self.layer}: median cosine {float(cells):.3f} of h_c ⊗ δ_cc' with g_cc'",
            f"{float(classes):.3f} of h_c ⊗ δ_c with g_c",
        ]


def mean_products(layer: Layer) -> MeanProducts:
    """How well g_{c,c'} ≈ h_c ⊗ δ_{c,c'} and g_c ≈ h_c ⊗ δ_c hold (Papyan 2020, §7.12).

    With a_i = π_{i,c'} δ_{i,c'}, g_{c,c'} = Σ_i a_i h_iᵀ and, as δ_{c,c'} = Σ_i a_i, the error is
    Σ_i a_i (h_i − h_c)ᵀ: the covariance of errors and features inside the cell. Both norms follow
    from inner products of inputs and of errors, without vectors as long as the weight, where that
    is less work. Where positions share the weight, h_c is a mean over them and δ_{c,c'} a sum.

    Raises
    ------
    ValueError
        If the layer's weight is no matrix.
    """
    layer.require_kronecker()
    problem = layer.problem
    C = problem.num_classes
    cells = weigh_gradients(problem.log_probabilities, problem.labels, problem.dtype)
    means = _feature_means(layer)
    found = torch.full((3, C, C + 1), torch.nan, dtype=torch.float64, device=problem.device)
    for c, inputs, errors in _by_class(layer, cells):
        sums = errors.sum(dim=1)
        found[0, c] = squared_norms(inputs, errors)
        found[1, c] = squared_norms(inputs - means[c], errors)
        found[2, c] = sums.square().sum(dim=1) * means[c].square().sum()
    whole, off, product = found
    # ⟨g, h ⊗ δ⟩ = (|g|² + |h ⊗ δ|² − |g − h ⊗ δ|²)/2.
    lengths = whole.sqrt() * product.sqrt()
    cosine = torch.where(lengths > 0, (whole + product - off) / (2 * lengths), torch.nan)
    error = torch.where(whole > 0, (off / whole).sqrt(), torch.nan)
    return MeanProducts(
        layer=layer.name,
        cosine=cosine[:, :C].cpu(),
        relative_error=error[:, :C].cpu(),
        class_cosine=cosine[:, C].cpu(),
        class_relative_error=error[:, C].cpu(),
        weights=cells.weights.cpu(),
    )


def _feature_means(layer: Layer) -> Float[Tensor, "C i"]:
    problem = layer.problem
    total = torch.zeros(problem.num_classes, layer.width_in, dtype=torch.float64)
    total = total.to(problem.device)
    for batch in layer.batches():
        total.index_add_(0, batch.labels, batch.feature_rows("reduce").vectors.double())
    return total / problem.class_counts.clamp_min(1)[:, None]


def _by_class(
    layer: Layer, cells: Cells
) -> Iterator[tuple[int, Float[Tensor, "m i"], Float[Tensor, "K m o"]]]:
    """Of each class inputs at all positions, and errors times their shares, float64.

    The last of the K = C + 1 errors is Σ_{c' ≠ c} π_{c,c'} π_{i,c'} δ_{i,c'}, which makes g_c. A
    pass over the data takes as many classes as fit.
    """
    counts = layer.problem.class_counts.tolist()
    present = [c for c, count in enumerate(counts) if count]
    sample = 8 * layer.positions * (layer.width_in + (len(counts) + 1) * layer.width_out)
    while present:
        taken, room = [present.pop(0)], BYTES_AT_ONCE
        room -= sample * counts[taken[0]]
        while present and room >= sample * counts[present[0]]:
            room -= sample * counts[present[0]]
            taken.append(present.pop(0))
        inputs: dict[int, list[Tensor]] = {c: [] for c in taken}
        errors: dict[int, list[Tensor]] = {c: [] for c in taken}
        for batch in layer.batches():
            for c in taken:
                chosen = batch.labels == c
                shares = cells.share[batch.rows][chosen][:, :, None, None]
                weighted = shares * batch.errors[chosen].double()
                mean = (cells.row_share[c][:, None, None] * weighted).sum(dim=1, keepdim=True)
                both = torch.cat([weighted, mean], dim=1)
                inputs[c].append(batch.inputs[chosen].double().flatten(0, 1))
                errors[c].append(both.transpose(0, 1).flatten(1, 2))
        for c in taken:
            yield c, torch.cat(inputs.pop(c)), torch.cat(errors.pop(c), dim=1)


def squared_norms(
    inputs: Float[Tensor, "m i"], errors: Float[Tensor, "K m o"]
) -> Float[Tensor, " K"]:
    """‖Σ_m δ_{k,m} h_mᵀ‖² for each k, the cheaper way.

    >>> squared_norms(torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0]], [[1.0]]]))
    tensor([45.,  5.])
    """
    (m, i), (K, _, o) = inputs.shape, errors.shape
    if m * (i + K * o) < K * i * o:
        alike = inputs @ inputs.T
        return torch.stack([((rows @ rows.T) * alike).sum() for rows in errors])
    return torch.stack([(rows.T @ inputs).square().sum() for rows in errors])
