"""The eigenpairs at an end of the spectrum, residual-checked, repeated ones included."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_whole, is_one_of, shown
from deepspec.krylov._arguments import check_operator, check_positive, check_vectors
from deepspec.krylov._lanczos import open_checkpoint
from deepspec.krylov._probes import dimension
from deepspec.krylov._results import Eigenpairs
from deepspec.krylov._thick_restart import KEYS, Search
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.orthonormal import orthonormal_basis
from deepspec.seeds import Seed, whole_seed

Which = Literal["largest", "smallest", "magnitude"]


def top_eigenpairs(
    A: SymmetricOperator,
    k: int = 10,
    which: Which = "largest",
    tol: float = 1e-6,
    *,
    start: Float[Tensor, "p b"] | None = None,
    max_matvecs: int | None = None,
    max_subspace: int | None = None,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> Eigenpairs:
    """Find the largest (smallest, largest in magnitude) eigenvalues with their eigenvectors.

    Thick-restart Lanczos (Wu and Simon, 2000) with full reorthogonalisation, on A's device. A
    pair has converged when its residual ‖A v − λ v‖ is at most max(tol |λ|, 10 ε ‖A‖), ε that
    of the dtype: what rounding leaves cannot be asked for.

    One start vector sees one copy of a repeated eigenvalue. So when k pairs have converged, a
    random vector orthogonal to all that was seen is thrown in and followed for some products. If
    it leads to a pair that belongs among the k, the search goes on. If not, the probability of
    that under "one was missed" is at most 1.648 √p exp(−√ε' (2q − 1)) (Kuczyński and
    Woźniakowski, 1992, Theorem 4.2: q products, ε' the gap to the k-th value relative to the
    spread); this is :attr:`Eigenpairs.miss_probability`. It is followed until that is below 1 %,
    or for a sixth of the products so far (at least 6), whichever is sooner. So copies are not lost
    where a gap follows the pairs. Where none does (k ends inside a bulk or between near values) the
    second limit ends it, ``miss_probability`` is near 1, and the last values may be of fewer copies
    than A has: to rule that out takes about as many products again, so it is left to the caller: a
    larger ``k``, up to the next gap, or the same search on ``A.deflate(pairs)``, whose largest
    value must lie below these.

    Finally one product with a random combination of the pairs is compared with what the
    recurrence says of them, so that an operator which is not symmetric or not deterministic
    does not pass.

    Parameters
    ----------
    k
        How many; all there are, if there are fewer (p less what a compression removed).
    start
        Columns that nearly span what is sought, in place of a random vector; class means are the
        natural ones for G. The search starts from the sum of an orthonormal basis of them: one
        vector with a share of each eigenvector sought, which a block would need k products for.
    max_matvecs
        Default 100 k + 1000.
    max_subspace
        How many vectors of length p may be held while it works: at least k + 5; default
        2 k + 20. Fewer cost more products.
    seed, checkpoint, checkpoint_every
        As in :func:`deepspec.krylov.lanczos`.

    Raises
    ------
    ValueError
        If ``k``, ``tol``, ``max_subspace`` or ``start`` cannot be right.
    NotConverged
        When ``max_matvecs`` are spent, or the final check fails; it holds the pairs so far.
    FloatingPointError
        If a product is not finite.

    >>> import torch
    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([3.0, 3.0, 1.0, -4.0], dtype=torch.float64)))
    >>> top_eigenpairs(A, 2).values
    tensor([3.0000, 3.0000], dtype=torch.float64)
    """
    k = _checked(A, k, which, tol, start)
    start = None if start is None else start.detach()
    capacity = 2 * k + 20 if max_subspace is None else max_subspace
    check_whole(capacity, k + 5, "max_subspace")
    budget = 100 * k + 1000 if max_matvecs is None else max_matvecs
    check_whole(budget, 1, "max_matvecs")
    chosen = whole_seed(seed)
    store = None
    if checkpoint is not None:
        digest = "" if start is None else hashlib.sha256(start.cpu().numpy().tobytes()).hexdigest()
        settings = {"k": k, "which": which, "tol": tol, "start": digest, "seed": chosen}
        settings |= {"max_subspace": capacity}
        store = open_checkpoint(checkpoint, checkpoint_every, A, "top_eigenpairs", settings)
    search = Search(A, k, which, tol, capacity, chosen)
    saved = None if store is None else store.load()
    if store is not None and saved is not None:
        with store.restoring():
            search.restore(*saved)
    elif start is not None:
        search.space.offer(orthonormal_basis(start).sum(dim=1))
    return search.run(budget, store)


def _checked(A: SymmetricOperator, k: int, which: str, tol: float, start: Tensor | None) -> int:
    """k, cut to what there is; raises ValueError for what cannot be right."""
    check_operator(A)
    check_whole(k, 1, "k")
    if not is_one_of(which, KEYS):
        raise ValueError(f"expected which to be one of {', '.join(KEYS)}; got {shown(which)}")
    check_positive(tol, "tol")
    if start is not None:
        check_vectors(A, start, columns=True)
    if dimension(A) < 1:
        raise ValueError("expected an operator with something left in it; all was projected out")
    return min(k, dimension(A))
