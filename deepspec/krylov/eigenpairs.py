"""The eigenpairs at an end of the spectrum, residual-checked, repeated ones included."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.checkpoint import Checkpoint, load_state, save_state
from deepspec.krylov._probes import dimension, normal_vector, resolve_seed
from deepspec.krylov._progress import progress
from deepspec.krylov._search_space import SearchSpace
from deepspec.krylov.lanczos import open_checkpoint
from deepspec.operators.algebra import Compression
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.orthonormal import orthonormal_basis

Which = Literal["largest", "smallest", "magnitude"]
_KEYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "largest": lambda values: -values,
    "smallest": lambda values: values,
    "magnitude": lambda values: -np.abs(values),
}


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """A few eigenvalues and eigenvectors.

    Attributes
    ----------
    values
        Descending, whichever end of the spectrum they are from.
    vectors
        Orthonormal columns, in the order of the values.
    residuals
        ‖A v − λ v‖ for each: an eigenvalue of A lies no further from λ than this.
    products
        How many products with A they cost.
    missed
        A bound on the probability that an eigenvalue that belongs here was missed (another copy
        of a repeated one, say): see :func:`top_eigenpairs`. NaN where nothing is known.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "p k"]
    residuals: Float[Tensor, " k"]
    products: int
    missed: float = math.nan

    def save(self, folder: str | Path) -> None:
        """Write a JSON manifest and the arrays (safetensors) into a folder."""
        manifest = {"kind": "eigenpairs", "products": self.products, "missed": repr(self.missed)}
        arrays = {"values": self.values, "vectors": self.vectors, "residuals": self.residuals}
        save_state(Path(folder), manifest, arrays)

    @classmethod
    def load(cls, folder: str | Path) -> Eigenpairs:
        """Read what :meth:`save` wrote, onto the CPU.

        Raises
        ------
        ValueError
            If the folder holds something else.
        """
        manifest, arrays = load_state(Path(folder))
        if manifest.get("kind") != "eigenpairs":
            raise ValueError(f"expected saved eigenpairs in {folder}, found {manifest.get('kind')}")
        return cls(
            arrays["values"],
            arrays["vectors"],
            arrays["residuals"],
            manifest["products"],
            float(manifest["missed"]),
        )


class NotConverged(RuntimeError):
    """The products ran out before the residuals were small; ``pairs`` is what there was."""

    def __init__(self, message: str, pairs: Eigenpairs) -> None:
        super().__init__(message)
        self.pairs = pairs


def top_eigenpairs(
    A: SymmetricOperator,
    k: int = 10,
    which: Which = "largest",
    tol: float = 1e-6,
    *,
    start: Float[Tensor, "p b"] | None = None,
    max_products: int | None = None,
    max_subspace: int | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> Eigenpairs:
    """The k largest (smallest, largest in magnitude) eigenvalues of A with their eigenvectors.

    Thick-restart Lanczos (Wu and Simon, 2000) with full reorthogonalisation, on A's device. A
    pair has converged when its residual ‖A v − λ v‖ is at most max(tol |λ|, 10 ε ‖A‖), ε that
    of the dtype: what rounding leaves cannot be asked for.

    One start vector sees one copy of a repeated eigenvalue. So when k pairs have converged, a
    random vector orthogonal to all that was seen is thrown in and followed for some products. If
    it leads to a pair that belongs among the k, the search goes on. If not, the probability of
    that under "one was missed" is at most 1.648 √p exp(−√ε' (2q − 1)) (Kuczyński and
    Woźniakowski, 1992, Theorem 4.2: q products, ε' the gap to the k-th value relative to the
    spread); this is :attr:`Eigenpairs.missed`. It is followed until that is below 1 %, or for a
    sixth of the products so far (at least 6), whichever is sooner.

    Finally one product with a random combination of the pairs is compared with what the
    recurrence says of them, so that an operator which is not symmetric or not deterministic
    does not pass.

    Parameters
    ----------
    k
        How many; all there are, if there are fewer (p less what a compression removed).
    start
        Columns to start from; class means are the natural ones for G. Default: one random vector.
    max_products
        Default 100 k + 1000.
    max_subspace
        How many vectors of length p may be held while it works: at least k + 3 and what the start
        needs; default 2 k + 20. Fewer cost more products.
    seed, generator, checkpoint, checkpoint_every
        As in :func:`deepspec.krylov.lanczos`.

    Raises
    ------
    ValueError
        If ``k``, ``tol``, ``max_subspace`` or ``start`` cannot be right.
    NotConverged
        When ``max_products`` are spent, or the final check fails; it holds the pairs so far.
    FloatingPointError
        If a product is not finite.

    >>> from deepspec.operators.algebra import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([3.0, 3.0, 1.0, -4.0], dtype=torch.float64)))
    >>> top_eigenpairs(A, 2).values
    tensor([3.0000, 3.0000], dtype=torch.float64)
    """
    k = _checked(A, k, which, tol, start)
    block = 1 if start is None else start.shape[1]
    capacity = max_subspace or max(2 * k + 20, k + 2 * block + 10)
    if capacity < k + block + 2:
        raise ValueError(f"expected max_subspace of at least {k + block + 2}, got {capacity}")
    budget = 100 * k + 1000 if max_products is None else max_products
    chosen = resolve_seed(seed, generator)
    store = None
    if checkpoint is not None:
        digest = "" if start is None else hashlib.sha256(start.cpu().numpy().tobytes()).hexdigest()
        settings = {"k": k, "which": which, "tol": tol, "start": digest, "seed": chosen}
        settings |= {"max_subspace": capacity}
        store = open_checkpoint(checkpoint, checkpoint_every, A, "top_eigenpairs", settings)
    search = _Search(A, k, which, tol, capacity, chosen)
    saved = None if store is None else store.load()
    if saved is not None:
        search.restore(*saved)
    elif start is not None:
        for column in orthonormal_basis(start).T:
            search.space.offer(column)
    return search.run(budget, store)


def _checked(A: SymmetricOperator, k: int, which: str, tol: float, start: Tensor | None) -> int:
    """k, cut to what there is; raises ValueError for what cannot be right."""
    if k < 1:
        raise ValueError(f"expected k of at least 1, got {k}")
    if which not in _KEYS:
        raise ValueError(f"expected which to be one of {', '.join(_KEYS)}; got {which!r}")
    if not tol > 0:
        raise ValueError(f"expected a positive tol, got {tol}")
    if start is not None and (start.ndim != 2 or start.shape[0] != A.size or not start.shape[1]):
        raise ValueError(f"expected start columns ({A.size}, b), got {tuple(start.shape)}")
    if dimension(A) < 1:
        raise ValueError("expected an operator with something left in it; all was projected out")
    return min(k, dimension(A))


class _Search:
    """The state of one search and the rule by which it ends."""

    def __init__(
        self, A: SymmetricOperator, k: int, which: str, tol: float, capacity: int, seed: int
    ) -> None:
        self.space = SearchSpace(A, capacity)
        self.k, self.key, self.which, self.tol, self.seed = k, _KEYS[which], which, tol, seed
        self.thrown = 0
        self.chain = -1  # members when the verifying vector was thrown in; -1: not verifying
        self.needed = 0
        self.missed = 1.0

    def run(self, budget: int, store: Checkpoint | None) -> Eigenpairs:
        space = self.space
        with progress("eigenpairs", None, space.products) as advance:
            while not self._done():
                if space.products >= budget:
                    raise NotConverged(
                        f"{space.products} products were not enough for {self.k} pairs at "
                        f"tol={self.tol:g}; residuals are {self._pairs().residuals.tolist()}. "
                        "Allow more (max_products), a larger max_subspace, a larger tol or a "
                        "smaller k; the pairs so far are in this error's .pairs",
                        self._pairs(),
                    )
                space.expand()
                advance()
                if store is not None:
                    store.offer(self.state)
        if store is not None:
            store.save(*self.state())
        return self._confirmed(self._pairs())

    def _done(self) -> bool:
        """Whether the pairs are there; if not, leaves something pending and room for it."""
        space = self.space
        if len(space.members) == dimension(space.operator):
            self.missed = 0.0
            return True
        if len(space.members) >= self.k:
            values, coordinates, residuals = space.ritz()
            order = np.argsort(self.key(values), kind="stable")
            converged = self._converged(values, residuals)[order[: self.k]].all()
            if not converged:
                self.chain = -1
            elif self.chain < 0:
                self._restart(values, coordinates, order)
                space.park()
                self._throw()
                self.chain = len(space.members)
                self.needed = max(6, space.products // 6)
            elif self._verified(values, order):
                return True
            if space.full:
                self._restart(values, coordinates, order)
        if not space.pending and not self._throw():
            raise NotConverged(
                f"no direction is left after {len(space.members)} of the "
                f"{dimension(space.operator)} expected; the operator may not be symmetric",
                self._pairs(),
            )
        return False

    def _restart(self, values: np.ndarray, coordinates: np.ndarray, order: np.ndarray) -> None:
        room = self.space.rows.shape[0] - len(self.space.pending + self.space.parked)
        keep = np.sort(order[: min(len(order), max(self.k + 1, (self.k + room) // 2))])
        self.space.restart(values[keep], coordinates[:, keep])
        self.chain = -1

    def _throw(self) -> bool:
        """A random direction orthogonal to everything becomes pending; False if there is none."""
        for _ in range(3):
            self.thrown += 1
            vector = normal_vector(self.space.operator, self.seed, 1_000_000 + self.thrown)
            if self.space.offer(vector):
                return True
        return False

    def _converged(self, values: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        floor = 10 * torch.finfo(self.space.rows.dtype).eps * self.space.scale
        return residuals <= np.maximum(self.tol * np.abs(values), floor)

    def _verified(self, values: np.ndarray, order: np.ndarray) -> bool:
        """Whether the vector thrown in has been followed for long enough."""
        space = self.space
        products = len(space.members) - self.chain
        if products < 1:
            return False
        own = np.linalg.eigvalsh(space.matrix[self.chain :, self.chain :])
        bar = values[order[self.k - 1]]
        ends = []
        if self.which in ("largest", "magnitude"):
            top = abs(bar) if self.which == "magnitude" else bar
            ends.append((top - own[-1]) / max(top - values[0], 1e-300))
        if self.which in ("smallest", "magnitude"):
            bottom = -abs(bar) if self.which == "magnitude" else bar
            ends.append((own[0] - bottom) / max(values[-1] - bottom, 1e-300))
        gap = min(1.0, max(0.0, min(ends)))
        size = dimension(space.operator)
        bound = 1.648 * math.sqrt(size) * math.exp(-math.sqrt(gap) * (2 * products - 1))
        exhausted = not space.pending  # then it has shown every eigenvalue there is off the rest
        self.missed = 0.0 if exhausted else min(1.0, bound)
        return self.missed < 0.01 or products >= self.needed or exhausted or space.full

    def _pairs(self) -> Eigenpairs:
        space = self.space
        values, coordinates, residuals = space.ritz()
        chosen = np.sort(np.argsort(self.key(values), kind="stable")[: self.k])[::-1].copy()
        like = space.rows
        return Eigenpairs(
            torch.from_numpy(values[chosen]).to(like),
            space.combine(coordinates[:, chosen]),
            torch.from_numpy(residuals[chosen]).to(like),
            space.products,
            self.missed,
        )

    def _confirmed(self, pairs: Eigenpairs) -> Eigenpairs:
        """The pairs, once a product with a random combination of them agrees."""
        generator = torch.Generator().manual_seed(0)
        signs = (
            torch.randint(0, 2, (len(pairs.values),), generator=generator).to(pairs.values) * 2 - 1
        )
        difference = self.space.operator @ (pairs.vectors @ signs)
        difference -= pairs.vectors @ (signs * pairs.values)
        found = float(difference.norm())
        allowed = float(pairs.residuals.sum()) + self._noise(self.space.scale)
        if found > allowed and isinstance(self.space.operator, Compression):
            # What is left may be small beside the rounding of what was there.
            probe = normal_vector(self.space.operator, self.seed, 0)
            whole = float((self.space.operator.operator @ probe).norm())
            allowed = float(pairs.residuals.sum()) + self._noise(whole)
        checked = Eigenpairs(
            pairs.values, pairs.vectors, pairs.residuals, pairs.products + 1, pairs.missed
        )
        if found <= allowed:
            return checked
        raise NotConverged(
            f"a product with the {len(pairs.values)} pairs is {found:g} from what it should be, at "
            f"most {allowed:g}; the operator's products are not symmetric, or differ from call "
            "to call",
            checked,
        )

    def _noise(self, norm: float) -> float:
        return 100 * torch.finfo(self.space.rows.dtype).eps * norm * math.sqrt(self.k)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        saved, arrays = self.space.state()
        own = {"thrown": self.thrown, "chain": self.chain, "needed": self.needed}
        return {**saved, **own, "missed": self.missed.hex()}, arrays

    def restore(self, saved: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        self.space.restore(saved, arrays)
        self.thrown, self.chain = saved["thrown"], saved["chain"]
        self.needed, self.missed = saved["needed"], float.fromhex(saved["missed"])
