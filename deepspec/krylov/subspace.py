"""Subspace iteration as the papers ran it: kept for comparison, not for use."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov._arguments import check_operator, check_whole
from deepspec.krylov._probes import dimension, resolve_seed, unit_probe
from deepspec.krylov._progress import progress
from deepspec.krylov.pairs import Eigenpairs
from deepspec.operators.base import SymmetricOperator


def subspace_iteration(
    A: SymmetricOperator,
    k: int = 10,
    iterations: int = 128,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    """The k eigenvalues largest in magnitude by V ← AQ, Q ← QR(V) ([002], Algorithm 5).

    k · (iterations + 1) products. The paper reads λ off as ‖v‖, which loses the sign; here it is
    the Rayleigh quotient on the last subspace, and the residuals are the true ones.
    :func:`deepspec.krylov.top_eigenpairs` takes a fraction of the products.

    Raises
    ------
    ValueError
        If ``k`` or ``iterations`` is below 1.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([1.0, 2.0, -8.0], dtype=torch.float64)))
    >>> subspace_iteration(A, k=1).values
    tensor([-8.], dtype=torch.float64)
    """
    check_operator(A)
    check_whole(iterations, 1, "iterations")
    check_whole(k, 1, "k")
    k = min(k, dimension(A))
    chosen = resolve_seed(seed, generator)
    A.prepare(k * iterations)
    basis = _orthonormal(torch.stack([unit_probe(A, chosen, i) for i in range(k)], dim=1))
    with progress("subspace iteration", iterations) as advance:
        for _ in range(iterations):
            basis = _orthonormal(A @ basis)
            advance()
    image = A @ basis
    small = basis.T @ image
    values, turn = torch.linalg.eigh((small + small.T) / 2)
    vectors = basis @ turn
    residuals = (image @ turn - vectors * values).norm(dim=0)
    order = values.argsort(descending=True)
    return Eigenpairs(values[order], vectors[:, order], residuals[order], k * (iterations + 1))


def _orthonormal(columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
    return torch.linalg.qr(columns).Q
