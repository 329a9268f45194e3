"""KFAC and EKFAC: a layer's Gauss-Newton block as one Kronecker product, and in its eigenbasis."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.layerwise.records import Shared
from deepspec.layerwise.sides import (
    Batches,
    error_rows,
    gradients_of,
    input_rows,
    one_position,
    require_room,
    weighted_errors,
    with_ones,
)
from deepspec.operators import KroneckerBasis, KroneckerProduct
from deepspec.operators.factors import MomentSum, WholeFactor


def kfac(batches: Batches, shared: Shared = "expand", *, bias: bool = False) -> KroneckerProduct:
    """Δ ⊗ H, second moments of errors and of inputs: as if the two were independent.

    Martens and Grosse (2015); Papyan (2020), Definition 7.1, where H is of the layer's input and
    Δ = Σ w δ δᵀ. Positions that share the weight count as replicates ("expand") or are averaged
    over, errors summed ("reduce"): Eschenhagen et al. (2023). Its trace is that of G^l only where
    ‖h‖² and ‖δ‖² are uncorrelated.

    Parameters
    ----------
    batches
        A pass over the layer's inputs and errors, such as ``layer.batches``.
    shared
        "expand" or "reduce".
    bias
        Append a 1 to the inputs, so that the operator is on (out, in + 1).

    Returns
    -------
    KroneckerProduct
        On the weight (out · in,), flattened row by row; one pass, and memory for its two factors.

    Raises
    ------
    MemoryError
        If the factors do not fit; says which width would.
    ValueError
        If there is no batch.
    """
    inputs = errors = None
    for batch in batches():
        seen, _ = input_rows(batch, shared, bias)
        arrived, _ = error_rows(batch, shared)
        if inputs is None or errors is None:
            require_room(batch, 1)
            inputs, errors = MomentSum(seen.shape[1]), MomentSum(arrived.shape[1])
        inputs.add(seen)
        errors.add(arrived)
    if inputs is None or errors is None:
        raise ValueError("expected at least one batch of inputs and errors, got none")
    return KroneckerProduct(errors.factor(), inputs.factor())


def ekfac(batches: Batches, shared: Shared = "expand", *, bias: bool = False) -> KroneckerBasis:
    """The diagonal of G^l in KFAC's eigenbasis, so that its trace is that of G^l.

    George et al. (2018): d_{rs} = Σ w (u_rᵀ g v_s)², with u of Δ and v of H. Of all matrices that
    are diagonal in that basis it is the nearest to G^l. Three passes.

    Parameters
    ----------
    batches, shared, bias
        As in :func:`kfac`.
    """
    factors = kfac(batches, shared, bias=bias)
    sides = [factors.left, factors.right]
    if not all(map(one_position, batches())):
        # What the mean over positions does not span, or padding does, has its share of G^l, too.
        sides = [WholeFactor(factor.dense()) for factor in sides]
    left, right = (factor.eigenpairs[1].to(factors.dtype) for factor in sides)
    return KroneckerBasis(left, right, diagonal_of_curvature(batches, left, right, bias=bias))


def diagonal_of_curvature(
    batches: Batches, left: Float[Tensor, "o r"], right: Float[Tensor, "i s"], *, bias: bool
) -> Float[Tensor, "r s"]:
    """(u_r ⊗ v_s)ᵀ G^l (u_r ⊗ v_s) for all pairs of columns: one pass, float64."""
    total = torch.zeros(left.shape[1], right.shape[1], dtype=torch.float64, device=left.device)
    for batch in batches():
        errors = weighted_errors(batch) @ left
        inputs = with_ones(batch.inputs, bias) @ right
        if one_position(batch):
            squares = errors[:, :, 0].double().square().sum(dim=1)
            total += squares.T @ inputs[:, 0].double().square()
        else:
            for found in gradients_of(errors, inputs):
                total += found.double().square().sum(dim=(0, 1))
    return total
