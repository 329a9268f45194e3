"""Thick-restart Lanczos: which Ritz vectors to keep, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepspec.krylov._probes import dimension, normal_vector
from deepspec.krylov._progress import progress
from deepspec.krylov._results import Eigenpairs, NotConverged
from deepspec.krylov._search_space import SearchSpace
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.compression import Compression
from deepspec.storage.checkpoint import Checkpoint, require, whole

# Told to the operator before a search starts, for each pair; how many there will be is not known.
EXPECTED_A_PAIR, EXPECTED_AT_LEAST = 3, 20

KEYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "largest": lambda values: -values,
    "smallest": lambda values: values,
    "magnitude": lambda values: -np.abs(values),
}


class Search:
    """The state of one search and the rule by which it ends."""

    def __init__(
        self, A: SymmetricOperator, k: int, which: str, tol: float, capacity: int, seed: int
    ) -> None:
        self.space = SearchSpace(A, capacity)
        self.k, self.key, self.which, self.tol, self.seed = k, KEYS[which], which, tol, seed
        self.thrown = 0
        self.chain = -1  # members when the verifying vector was thrown in; -1: not verifying
        self.needed = 0  # matvecs to follow it for
        self.bar = math.inf  # the sum of the values' keys then
        self.missed = 1.0
        self.forgotten = 0.0

    def run(self, budget: int, store: Checkpoint | None) -> Eigenpairs:
        """Search until done, within so many matvecs."""
        space = self.space
        space.operator.prepare(max(EXPECTED_AT_LEAST, EXPECTED_A_PAIR * self.k))
        with progress("eigenpairs", None, space.matvecs) as advance:
            while not self._done():
                if space.matvecs >= budget:
                    pairs = self._pairs()
                    if store is not None:  # with more matvecs allowed it goes on from here
                        store.save(*self.state())
                    raise NotConverged(
                        f"{space.matvecs} matvecs were not enough for {self.k} pairs at "
                        f"tol={self.tol:g}; residuals are {pairs.residuals.tolist()}. Allow more "
                        "(max_matvecs), a larger max_subspace, a larger tol or a smaller k; the "
                        "pairs so far are in this error's .pairs",
                        pairs,
                    )
                space.expand()
                advance()
                if store is not None:
                    store.offer(self.state)
        if store is not None:
            store.save(*self.state())
        return self._confirmed(self._pairs())

    def _done(self) -> bool:
        """Whether the pairs are there; if not, leaves a vector pending and room for the next."""
        space = self.space
        if len(space.members) == dimension(space.operator):
            self.missed = 0.0
            return True
        if len(space.members) >= self.k:
            values, coordinates, residuals = space.ritz()
            order = np.argsort(self.key(values), kind="stable")
            converged = self._converged(values, residuals)[order]
            first = order[: self.k]
            total = float(self.key(values[first]).sum())
            slack = max(self.tol * np.abs(values[first]).max(), self._floor())
            if not converged[: self.k].all() or total < self.bar - slack:
                self.chain = -1  # not there yet, or what was thrown in belongs among them
            if converged[: self.k].all() and self.chain < 0:
                # Off pairs that are exact to tol, what follows is a Lanczos run of its own.
                found = order[: len(order) if converged.all() else int(converged.argmin())]
                found = np.sort(found[: space.rows.shape[0] - 4])
                self.forgotten = max(self.forgotten, float(residuals[found].max()))
                space.restart(values[found], coordinates[:, found])
                space.forget_pending()
                self.bar, self.chain = total, len(space.members)
                self.needed = max(6, space.matvecs // 6)
            elif self.chain >= 0 and self._verified(values, order):
                return True
            elif space.full:
                room = space.rows.shape[0]
                count = min(len(order) - 1, max(self.k + 1, (self.k + room) // 2))
                keep = np.sort(order[:count])
                space.restart(values[keep], coordinates[:, keep])
                self.chain = -1
        if not space.pending and not self._throw():
            raise NotConverged(
                f"no direction is left after {len(space.members)} of the "
                f"{dimension(space.operator)} expected; the operator may not be symmetric",
                self._pairs(),
            )
        return False

    def _throw(self) -> bool:
        """A random direction orthogonal to everything becomes pending; False if there is none."""
        for _ in range(3):
            self.thrown += 1
            vector = normal_vector(self.space.operator, self.seed, 1_000_000 + self.thrown)
            if self.space.offer(vector):
                return True
        return False

    def _converged(self, values: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        return residuals <= np.maximum(self.tol * np.abs(values), self._floor())

    def _floor(self) -> float:
        return 10 * self.space.operator.epsilon * self.space.scale

    def _verified(self, values: np.ndarray, order: np.ndarray) -> bool:
        """Whether the vector thrown in has been followed for long enough."""
        space = self.space
        matvecs = len(space.members) - self.chain
        if matvecs < 1:
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
        bound = 1.648 * math.sqrt(size) * math.exp(-math.sqrt(gap) * (2 * matvecs - 1))
        exhausted = not space.pending  # then it has shown every eigenvalue off the pairs
        self.missed = 0.0 if exhausted else min(1.0, bound)
        return self.missed < 0.01 or matvecs >= self.needed or exhausted or space.full

    def _pairs(self) -> Eigenpairs:
        space = self.space
        values, coordinates, residuals = space.ritz()
        chosen = np.sort(np.argsort(self.key(values), kind="stable")[: self.k])[::-1].copy()
        like = space.rows
        # Of the recurrence, what was forgotten, and rounding, which neither of them sees.
        errors = np.hypot(residuals[chosen], self.forgotten) + self._floor()
        return Eigenpairs(
            values=torch.from_numpy(values[chosen]).to(like),
            vectors=space.combine(coordinates[:, chosen]),
            residuals=torch.from_numpy(errors).to(like),
            matvecs=space.matvecs,
            miss_probability=self.missed,
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
        checked = replace(pairs, matvecs=pairs.matvecs + 1)
        if found <= allowed:
            return checked
        raise NotConverged(
            f"a product with the {len(pairs.values)} pairs is {found:g} from what it should be, at "
            f"most {allowed:g}; the operator's products are not symmetric, or differ from call "
            "to call",
            checked,
        )

    def _noise(self, norm: float) -> float:
        return 100 * self.space.operator.epsilon * norm * math.sqrt(self.k)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        saved, arrays = self.space.state()
        own = {n: getattr(self, n) for n in ("thrown", "chain", "needed")}
        floats = {n: getattr(self, n).hex() for n in ("missed", "forgotten", "bar")}
        return {**saved, **own, **floats}, arrays

    def restore(self, saved: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        """Become the search whose :meth:`state` this is.

        Raises
        ------
        ValueError
            If the parts of the state do not fit each other.
        """
        self.space.restore(saved, arrays)
        self.thrown = whole(saved["thrown"], "the number of random vectors", 0)
        self.chain = whole(saved["chain"], "the verification", -1, len(self.space.members))
        self.needed = whole(saved["needed"], "the verification", 0, self.space.matvecs + 6)
        self.missed, self.forgotten, self.bar = (
            float.fromhex(saved[name]) for name in ("missed", "forgotten", "bar")
        )
        require(0 <= self.missed <= 1, "the probability of a miss")
        require(0 <= self.forgotten < math.inf, "the largest residual left out")
        require(not math.isnan(self.bar), "the sum of the values")
