"""A growing orthonormal basis with the operator's matrix on it, and what sticks out of it.

The invariant, with V the members and Q the pending vectors, all orthonormal:

    A V = V H + Q B.

A pending vector becomes a member at the price of one product. Lanczos is the case of one pending
vector; a start block, a thick restart and a random vector thrown in are others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov._arguments import not_finite
from deepspec.krylov._inner import MOST_PASSES, enough_left, pieces
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.compression import Compression
from deepspec.storage.checkpoint import finite, require, whole


class SearchSpace:
    """V, H, Q, B of one operator, in ``capacity`` rows of length p."""

    def __init__(self, A: SymmetricOperator, capacity: int) -> None:
        self.operator = A
        self.rows = torch.empty(capacity, A.size, dtype=A.dtype, device=A.device)
        self.used = 0
        self.members: list[int] = []
        self.pending: list[int] = []
        self.matrix = np.zeros((0, 0))
        self.coupling = np.zeros((0, 0))  # a row for each pending vector
        self.matvecs = 0
        self.scale = 0.0
        self._noise = 10 * A.epsilon
        # A Compression's own product projects twice; with rows that are projected once is enough.
        self._multiply: Callable[[Tensor], Tensor] = (
            A.operator.__matmul__ if isinstance(A, Compression) else A.__matmul__
        )
        self._keep = A.restrict if isinstance(A, Compression) else None

    @property
    def full(self) -> bool:
        """Whether the next product's residual has no row to go to."""
        return self.used == self.rows.shape[0]

    def offer(self, vector: Float[Tensor, " p"]) -> bool:
        """Make a vector pending, once it is orthogonal to the rest; False if nothing is left."""
        if self._keep is not None:
            vector = self._keep(vector)
        length = float(vector.norm())
        vector, _, left = self._orthogonalized(vector.clone(), torch.zeros(self.used).to(vector))
        if left <= 100 * self._noise * length:
            return False
        self._append(vector.div_(left), np.zeros(len(self.members)))
        return True

    def expand(self) -> None:
        """Multiply the first pending vector, which becomes a member; what is new is pending last.

        Raises
        ------
        FloatingPointError
            If the product is not finite, or its square.
        """
        row = self.pending.pop(0)
        image = self._multiply(self.rows[row])
        size = len(self.members)
        if image.untyped_storage().data_ptr() == self.rows.untyped_storage().data_ptr():
            image = image.clone()
        self.matvecs += 1
        image, coefficients, left = self._orthogonalized(image, self._expected(image, row))
        if not math.isfinite(left):
            raise not_finite(self.operator, f"product {self.matvecs}")
        grown = np.zeros((size + 1, size + 1))
        grown[:size, :size] = self.matrix
        grown[size, :size] = grown[:size, size] = coefficients[self.members]
        grown[size, size] = coefficients[row]
        self.matrix = grown
        beside = coefficients[self.pending]
        self.coupling = np.hstack([self.coupling[1:], beside[:, None]])
        self.members.append(row)
        self.scale = max(self.scale, float(np.linalg.norm(coefficients)), left)
        if left > self._noise * self.scale:
            self._append(image.div_(left), np.append(np.zeros(size), left))

    def _append(self, vector: Tensor, couplings: np.ndarray) -> None:
        self.rows[self.used] = vector
        self.coupling = np.vstack([self.coupling, couplings])
        self.pending.append(self.used)
        self.used += 1

    def _expected(self, image: Tensor, row: int) -> Tensor:
        """Take off what is known of the image of a row before it is compared with all others.

        ⟨A q, v⟩ = ⟨q, A v⟩ stands in the couplings: one number in a Lanczos run, all of them after
        a restart. With that and ⟨A q, q⟩ taken off, what is left is as long as the new direction,
        so that one sweep through all rows finds the rest of it to rounding.
        """
        known = torch.zeros(self.used, dtype=torch.float64)
        known[self.members] = torch.from_numpy(self.coupling[0])
        there = known.nonzero()[:, 0]
        total = known.to(image)
        if len(there) == 1:
            image.sub_(self.rows[there[0]], alpha=float(known[there[0]]))
        elif len(there):
            image.addmv_(self.rows[: self.used].T, total, alpha=-1)
        own = torch.dot(self.rows[row], image)
        image.sub_(own * self.rows[row])
        total[row] += own
        return total

    def _orthogonalized(self, vector: Tensor, total: Tensor) -> tuple[Tensor, np.ndarray, float]:
        """The vector off all rows, its coefficients on them, and the norm of what is left.

        ``total`` is what was taken off already. A compression's range is left last and at the
        vector's final length: rounding on that range would otherwise grow, product by product,
        into eigenvectors of what was removed.
        """
        rows = self.rows[: self.used]
        left = float(vector.norm())
        for _ in range(MOST_PASSES):
            before = left
            part = rows @ vector
            vector.addmv_(rows.T, part, alpha=-1)
            total += part
            if self._keep is not None:
                vector = self._keep(vector)
            left = float(vector.norm())
            if enough_left(left, before):
                break
        return vector, total.double().cpu().numpy(), left

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (ascending), their coordinates in V, and their residual norms ‖B s‖."""
        values, coordinates = np.linalg.eigh((self.matrix + self.matrix.T) / 2)
        return values, coordinates, np.linalg.norm(self.coupling @ coordinates, axis=0)

    def restart(self, values: np.ndarray, coordinates: np.ndarray) -> None:
        """Keep these Ritz vectors and everything pending, and forget the rest of V."""
        outside = self.pending
        rotation = np.zeros((self.used, values.shape[0] + len(outside)))
        rotation[self.members, : values.shape[0]] = coordinates
        rotation[outside, range(values.shape[0], rotation.shape[1])] = 1.0
        turn = torch.from_numpy(rotation.T.copy()).to(self.rows.device, self.rows.dtype)
        kept = rotation.shape[1]
        for piece in pieces(self.rows[0]):
            self.rows[:kept, piece] = turn @ self.rows[: self.used, piece]
        self.coupling = self.coupling @ coordinates
        self.matrix = np.diag(values)
        self.used = kept
        self.members = list(range(values.shape[0]))
        self.pending = list(range(values.shape[0], kept))

    def forget_pending(self) -> None:
        """Drop all pending vectors, which must be the last rows, and the couplings to them."""
        self.used = len(self.members)
        self.pending = []
        self.coupling = np.zeros((0, len(self.members)))

    def combine(self, coordinates: np.ndarray) -> Float[Tensor, "p k"]:
        """V times coordinates."""
        turn = torch.from_numpy(np.ascontiguousarray(coordinates.T))
        turn = turn.to(self.rows.device, self.rows.dtype)
        out = self.rows.new_empty(turn.shape[0], self.rows.shape[1])
        spread = self.rows.new_zeros(turn.shape[0], self.used)
        spread[:, self.members] = turn
        for piece in pieces(self.rows[0]):
            out[:, piece] = spread @ self.rows[: self.used, piece]
        return out.T

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that the next expansion depends on."""
        progress = {
            "members": self.members,
            "pending": self.pending,
            "matvecs": self.matvecs,
            "scale": self.scale.hex(),
        }
        arrays = {
            "rows": self.rows[: self.used],
            "matrix": torch.from_numpy(self.matrix),
            "coupling": torch.from_numpy(np.ascontiguousarray(self.coupling)),
        }
        return progress, arrays

    def restore(self, progress: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
        """Become the space whose :meth:`state` this is.

        Raises
        ------
        ValueError
            If the parts of the state do not fit each other: each row in use is a member or
            pending, once; the rows are orthonormal; H is symmetric.
        """
        members, pending = progress["members"], progress["pending"]
        used = len(members) + len(pending)
        require(used <= self.rows.shape[0], "the number of vectors")
        require(sorted([*members, *pending]) == list(range(used)), "the list of vectors")
        rows = finite(arrays["rows"], "the basis", (used, self.rows.shape[1]), self.rows)
        off = rows @ rows.T - torch.eye(used, dtype=rows.dtype, device=rows.device)
        require(used == 0 or float(off.abs().max()) < 1e-3, "the basis")
        m, square = len(members), torch.zeros((), dtype=torch.float64)
        matrix = finite(arrays["matrix"], "the operator's matrix", (m, m), square)
        require(torch.equal(matrix, matrix.T), "the operator's matrix")
        coupling = finite(arrays["coupling"], "the residuals", (len(pending), m), square)
        scale = float.fromhex(progress["scale"])
        require(math.isfinite(scale) and scale >= 0, "the scale")
        self.matvecs = whole(progress["matvecs"], "the number of matvecs", m)
        self.members, self.pending, self.used, self.scale = members, pending, used, scale
        self.rows[:used] = rows
        self.matrix, self.coupling = matrix.numpy(), coupling.numpy()
