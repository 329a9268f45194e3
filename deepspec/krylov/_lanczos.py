"""The Lanczos recurrence: a symmetric operator seen from one vector, as a tridiagonal matrix."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import as_path, check_not_negative, check_whole, is_one_of, shown
from deepspec.krylov._arguments import check_operator, check_vectors, not_finite
from deepspec.krylov._inner import MOST_PASSES, enough_left, inner, subtract_then_inner
from deepspec.krylov._probes import dimension, normal_vector
from deepspec.krylov._progress import progress
from deepspec.krylov.tridiagonal import Tridiagonal
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.compression import Compression
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.checkpoint import Checkpoint, as_tensor, finite, require

Reorthogonalize = Literal["none", "full"]


class Recurrence:
    """A Lanczos run in the making; it owns three vectors of length p, and the start is one.

    Between two steps it can be written down (:meth:`state`) and taken up again
    (:meth:`restore`); the run then goes on to the bit.
    """

    def __init__(
        self, A: SymmetricOperator, start: Tensor, steps: int, keep_basis: bool, seed: int
    ) -> None:
        self.operator = A
        self.steps = min(steps, dimension(A)) if keep_basis else steps
        self.seed = seed
        self.current = start
        self.previous: Tensor | None = None
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.exhausted = False
        self.basis = start.new_empty(self.steps, start.shape[0]) if keep_basis else None
        # A Compression's own product projects twice; with a projected vector once is enough.
        self._multiply: Callable[[Tensor], Tensor] = (
            A.operator.__matmul__ if isinstance(A, Compression) else A.__matmul__
        )
        self._keep = A.restrict if isinstance(A, Compression) else None
        self._scale = 0.0

    @property
    def finished(self) -> bool:
        return len(self.alphas) == self.steps or self.exhausted

    def step(self) -> None:
        """One product, and one row and column more of T."""
        count = len(self.alphas)
        if self.basis is not None:
            self.basis[count] = self.current
        image = self._multiply(self.current)
        if image.untyped_storage().data_ptr() == self.current.untyped_storage().data_ptr():
            image = image.clone()
        if self.previous is None:
            alpha = inner(image, self.current)
        else:
            alpha = subtract_then_inner(image, self.betas[-1], self.previous, self.current)
        self.previous = None
        square = subtract_then_inner(image, alpha, self.current, image)
        if not math.isfinite(square):
            raise not_finite(self.operator, f"product {count + 1}")
        if self._keep is not None or self.basis is not None:
            image = self._off(image, count + 1)
            square = inner(image, image)
        beta = math.sqrt(square)
        self.alphas.append(alpha)
        self._scale = max(self._scale, abs(alpha), beta)
        if beta <= 10 * self.operator.epsilon * self._scale:
            beta = 0.0
            image = self._fresh_direction(count + 1)
        else:
            image.div_(beta)
        self.betas.append(beta)
        self.previous, self.current = self.current, image

    def _off(self, vector: Tensor, count: int) -> Tensor:
        """Off the basis where there is one, and off what a compression removed.

        What was removed comes off last, at the vector's final length, or else its rounding would
        be a part of a short vector, and A large on it. α and β are off the vector already: mostly
        one sweep will do.
        """
        left = float(vector.norm())
        for _ in range(MOST_PASSES):
            before = left
            if self.basis is not None:
                rows = self.basis[:count]
                vector.addmv_(rows.T, rows @ vector, alpha=-1)
            if self._keep is not None:
                vector = self._keep(vector)
            left = float(vector.norm())
            if enough_left(left, before):
                break
        return vector

    def _fresh_direction(self, count: int) -> Tensor:
        """After an invariant subspace: stop, or with a basis go on in what is orthogonal to it."""
        if self.basis is None or count == self.steps:
            self.exhausted = True
            return self.current
        vector = normal_vector(self.operator, self.seed, 1_000_000 + count)
        vector = self._off(vector, count)
        return vector.div_(math.sqrt(inner(vector, vector)))

    def tridiagonal(self, with_basis: bool = True) -> Tridiagonal:
        """T so far."""
        basis = self.basis[: len(self.alphas)].T if with_basis and self.basis is not None else None
        alphas, betas = as_tensor(self.alphas), as_tensor(self.betas)
        return Tridiagonal(
            diagonal=alphas,
            off_diagonal=betas[:-1],
            next_off_diagonal=self.betas[-1],
            exhausted=self.exhausted,
            basis=basis,
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that the next step depends on."""
        arrays = {
            "alphas": as_tensor(self.alphas),
            "betas": as_tensor(self.betas),
            "current": self.current,
        }
        if self.previous is not None:
            arrays["previous"] = self.previous
        if self.basis is not None:
            arrays["basis"] = self.basis[: len(self.alphas)]
        return {"exhausted": self.exhausted, "scale": self._scale.hex()}, arrays

    def restore(self, saved: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
        """Become the run whose :meth:`state` this is.

        Raises
        ------
        ValueError
            If the parts of the state do not fit each other or the run.
        """
        count, numbers = len(arrays["alphas"]), torch.zeros((), dtype=torch.float64)
        require(count <= self.steps, "the number of steps")
        alphas = finite(arrays["alphas"], "the diagonal", (count,), numbers)
        betas = finite(arrays["betas"], "what is beside the diagonal", (count,), numbers)
        require(bool((betas >= 0).all()), "what is beside the diagonal")
        size, like = (self.current.shape[0],), self.current
        self.current = finite(arrays["current"], "the last vector", size, like)
        require(("previous" in arrays) == (count > 0), "the vector before the last")
        self.previous = None
        if count > 0:
            self.previous = finite(arrays["previous"], "the vector before the last", size, like)
        if self.basis is not None:
            self.basis[:count] = finite(arrays["basis"], "the basis", (count, *size), like)
        self.alphas, self.betas = alphas.tolist(), betas.tolist()
        self.exhausted, self._scale = saved["exhausted"] is True, float.fromhex(saved["scale"])
        require(0 <= self._scale < math.inf, "the scale")


def lanczos(
    A: SymmetricOperator,
    steps: int,
    start: Float[Tensor, " p"],
    reorthogonalize: Reorthogonalize = "none",
    *,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> Tridiagonal:
    """Run the Lanczos recurrence from a start vector, which yields a tridiagonal matrix.

    That of A on the Krylov space span{v, Av, A²v, …} of the start vector v:
    β_j v_{j+1} = A v_j − α_j v_j − β_{j−1} v_{j−1} (Papyan 2020, Algorithm 1 with
    ``reorthogonalize="full"``, Algorithm 2 with ``"none"``): one product a step. Inner products
    accumulate in float64. Without reorthogonalisation three vectors of length p are kept and
    ghost copies of converged eigenvalues appear (:attr:`SpectralDensity.ghosts` flags them); with
    it, one vector a step.

    Parameters
    ----------
    A
        The operator.
    steps
        How many products at most. Fewer are taken when an invariant subspace is met ("none"), or
        when as many as there are dimensions are done ("full"). In a full run an invariant
        subspace is followed by a random direction orthogonal to it, with β = 0: so p steps
        give every eigenvalue, repeated ones too, and the weights stay those of ``start``.
    start
        v, of any length but 0. What a :class:`~deepspec.operators.Compression` removed is
        taken out of it.
    seed
        Where those random directions come from.
    checkpoint, checkpoint_every
        A folder to save the state to, and the seconds between two saves. Started again with the
        same arguments, the run goes on from there, to the bit on the CPU.

    Raises
    ------
    ValueError
        If ``steps`` is below 1, ``start`` is zero, not finite or all in what a compression
        removed, or ``reorthogonalize`` unknown.
    TypeError
        If an argument is of another kind, or ``start`` of another dtype or device.
    FloatingPointError
        If a product is not finite, or its square.
    CheckpointMismatch
        If the checkpoint is of another operator, start or configuration.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)))
    >>> T = lanczos(A, 3, torch.ones(3, dtype=torch.float64))
    >>> T.ritz_values.round(decimals=9), (3 * T.ritz_weights).round(decimals=9)
    (tensor([1., 2., 3.], dtype=torch.float64), tensor([1., 1., 1.], dtype=torch.float64))
    """
    check_operator(A)
    check_whole(steps, 1, "steps")
    full = check_reorthogonalize(reorthogonalize)
    check_vectors(A, start, columns=False)
    chosen = whole_seed(seed)
    run = Recurrence(A, _unit(A, start.detach()), steps, full, chosen)
    if checkpoint is None:
        complete(run, None)
        return run.tridiagonal()
    digest = hashlib.sha256(start.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    settings = {"steps": steps, "reorthogonalize": reorthogonalize, "seed": chosen, "start": digest}
    store = open_checkpoint(checkpoint, checkpoint_every, A, "lanczos", settings)
    saved = store.load()
    if saved is not None:
        with store.restoring():
            run.restore(*saved)
    complete(run, store)
    return run.tridiagonal()


def _unit(A: SymmetricOperator, start: Tensor) -> Tensor:
    """A start of length 1, off what a compression removed: the recurrence multiplies by A itself.

    Scaled by its largest entry first, so that no square under- or overflows.
    """
    vector = start / torch.linalg.vector_norm(start, math.inf)
    if isinstance(A, Compression):
        length = inner(vector, vector) ** 0.5
        vector = A.restrict(vector)
        left = inner(vector, vector) ** 0.5
        if left <= 100 * A.epsilon * length:
            raise ValueError(
                "expected a start with a part in what the compression left, got one in the range "
                "that it removed; start from another vector, such as a random one"
            )
        vector = A.restrict(vector / left)
    return vector.div_(inner(vector, vector) ** 0.5)


def complete(run: Recurrence, store: Checkpoint | None) -> None:
    """Take the steps that are left, saving on the way and at the end."""
    run.operator.prepare(run.steps)
    with progress("Lanczos", run.steps, len(run.alphas)) as advance:
        while not run.finished:
            run.step()
            advance()
            if store is not None and not run.finished:
                store.offer(run.state)
    if store is not None:
        store.save(*run.state())


def open_checkpoint(
    path: str | Path, every: float, A: SymmetricOperator, estimator: str, settings: dict[str, Any]
) -> Checkpoint:
    """The checkpoint of an estimator's run on A."""
    configuration = {"estimator": estimator, **settings, **A.fingerprint()}
    tolerance = 32 * A.epsilon
    check_not_negative(every, "checkpoint_every")
    place = as_path(path, "checkpoint")
    return Checkpoint(place, every, configuration, tolerance, A.plan, A.follow, A.group)


def check_reorthogonalize(reorthogonalize: str) -> bool:
    """Whether it is "full"; raises ValueError for what is neither."""
    if not is_one_of(reorthogonalize, ("none", "full")):
        raise ValueError(f'expected reorthogonalize="none" or "full", got {shown(reorthogonalize)}')
    return reorthogonalize == "full"
