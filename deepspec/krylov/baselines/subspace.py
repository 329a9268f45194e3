"""Subspace iteration as the papers ran it: kept for comparison, not for use."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_whole
from deepspec.krylov._arguments import check_operator, not_finite
from deepspec.krylov._probes import dimension, unit_probe
from deepspec.krylov._progress import progress
from deepspec.krylov._results import Eigenpairs
from deepspec.krylov._resuming import opened
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.checkpoint import finite, whole


def subspace_iteration(
    A: SymmetricOperator,
    k: int = 10,
    iterations: int = 128,
    *,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> Eigenpairs:
    """The k eigenvalues largest in magnitude by V ← AQ, Q ← QR(V) (Papyan 2020, Algorithm 5).

    k · (iterations + 1) products. The paper reads λ off as ‖v‖, which loses the sign; here it is
    the Rayleigh quotient on the last subspace, and the residuals are the true ones.
    :func:`deepspec.krylov.top_eigenpairs` takes a fraction of the products.

    Parameters
    ----------
    k
        How many; all there are, if there are fewer.
    iterations
        How many times A is applied to the basis.
    seed
        Where the first basis comes from.
    checkpoint, checkpoint_every
        As in :func:`deepspec.krylov.lanczos`; the state is the basis after a whole iteration.

    Raises
    ------
    ValueError
        If ``k`` or ``iterations`` is below 1.
    CheckpointMismatch
        If the checkpoint is of another operator or configuration.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([1.0, 2.0, -8.0], dtype=torch.float64)))
    >>> subspace_iteration(A, k=1).values
    tensor([-8.], dtype=torch.float64)
    """
    check_operator(A)
    check_whole(iterations, 1, "iterations")
    check_whole(k, 1, "k")
    k = min(k, dimension(A))
    chosen = whole_seed(seed)
    settings = {"k": k, "iterations": iterations, "seed": chosen}
    store, saved = opened(checkpoint, checkpoint_every, A, "subspace_iteration", settings)
    A.prepare(k * iterations)
    image: Tensor | None = None
    basis, done = torch.stack([unit_probe(A, chosen, i) for i in range(k)], dim=1), 0
    if store is None or saved is None:
        basis = _orthonormal(basis)
    else:
        with store.restoring():
            done = whole(saved[0]["iterations"], "the number of iterations", 0, iterations)
            found = {
                name: finite(array, name, basis.shape, basis) for name, array in saved[1].items()
            }
            basis, image = found["basis"], found.get("image")
    with progress("subspace iteration", iterations, done) as advance:
        while done < iterations:
            basis = _orthonormal(_finite(A, A @ basis, f"product {done + 1}"))
            done += 1
            advance()
            if store is not None:
                store.offer(partial(_state, done, basis))
    if image is None:
        image = _finite(A, A @ basis, "the last product").contiguous()
        if store is not None:
            store.save(*_state(done, basis, image))
    small = basis.T @ image
    values, turn = torch.linalg.eigh((small + small.T) / 2)
    vectors = basis @ turn
    residuals = (image @ turn - vectors * values).norm(dim=0)
    order = values.argsort(descending=True)
    return Eigenpairs(
        values=values[order],
        vectors=vectors[:, order],
        residuals=residuals[order],
        matvecs=k * (iterations + 1),
    )


def _finite(A: SymmetricOperator, columns: Tensor, which: str) -> Tensor:
    if not bool(torch.isfinite(columns).all()):
        raise not_finite(A, which)
    return columns


def _orthonormal(columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
    """By rows in memory, as when it is read from a checkpoint: that can change the rounding."""
    return torch.linalg.qr(columns).Q.contiguous()


def _state(
    iterations: int, basis: Tensor, image: Tensor | None = None
) -> tuple[dict[str, int], dict[str, Tensor]]:
    """All that what is left depends on; A times the basis only once it is final."""
    arrays = {"basis": basis} if image is None else {"basis": basis, "image": image}
    return {"iterations": iterations}, arrays
