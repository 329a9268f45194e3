"""Rows with class structure: D, by products with D and Dᵀ.

Row (i, c') of D is √w_{i,c'} v_{i,c'}ᵀ, number i·K + c' of m = nK. V = DᵀD (d × d) is the second
moment, and S = D Dᵀ (m × m) has its nonzero eigenvalues. What an array *is* differs only in how D
multiplies: to add another second moment to the library, write another subclass of :class:`Rows`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.parts import Part
from deepspec.classifier.softmax import mean_minus_each, mean_minus_each_transposed
from deepspec.engine.distributed import ALONE, Group
from deepspec.memory import free_memory
from deepspec.neural_tangent_kernel import tangent_kernel
from deepspec.operators import GaussNewton, LogitForm, PullbackOperator, SymmetricOperator
from deepspec.operators.on_problem import require_problem
from deepspec.problem import Problem

COLUMNS_AT_ONCE = 16
ROWS_AT_ONCE = 256


class Rows(ABC):
    """The matrix D (m × d) of weighted vectors, known by its products."""

    #: m = nK, and d, the length of a vector.
    size: int
    width: int
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def matmul(self, columns: Float[Tensor, "d k"]) -> Float[Tensor, "m k"]:
        """D V."""

    @abstractmethod
    def rmatmul(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "d k"]:
        """Dᵀ X."""

    @abstractmethod
    def gram(self) -> Float[Tensor, "m m"]:
        """S = D Dᵀ, formed the fastest way there is."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str | int | float]:
        """What tells these rows from others."""

    def form(self, part: Part | None) -> SymmetricOperator:
        """DᵀPD on vectors of length d, or DᵀD where there is no P."""
        return RowsForm(self, part)

    def dense(self) -> Float[Tensor, "m d"]:
        """D itself, for vectors that are short."""
        eye = torch.eye(self.width, dtype=self.dtype, device=self.device)
        return torch.cat([self.matmul(few) for few in eye.split(COLUMNS_AT_ONCE, 1)], dim=1)

    def prepare(self, matvecs: int) -> None:
        """Make ready for many products."""

    def free_memory(self) -> int:
        """Bytes that are free for matrices made of these rows."""
        return free_memory(self.device)

    @property
    def group(self) -> Group:
        """The processes that a product takes."""
        return ALONE

    @property
    def symbol(self) -> str:
        """What the second moment is called in tables and figures."""
        return "V"


class TensorRows(Rows):
    """Vectors that are at hand as a tensor."""

    def __init__(self, vectors: Float[Tensor, "m d"], root_weights: Float[Tensor, " m"]) -> None:
        self._rows = (vectors.double() * root_weights[:, None]).to(vectors.dtype)
        self.size, self.width = vectors.shape
        self.dtype, self.device = vectors.dtype, vectors.device

    def matmul(self, columns: Float[Tensor, "d k"]) -> Float[Tensor, "m k"]:
        return self._rows @ columns

    def rmatmul(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "d k"]:
        return self._rows.T @ columns.to(self.dtype)

    def gram(self) -> Float[Tensor, "m m"]:
        return self._rows @ self._rows.T

    def dense(self) -> Float[Tensor, "m d"]:
        return self._rows

    def fingerprint(self) -> dict[str, str | int | float]:
        probe = torch.cos(torch.arange(self.width, dtype=torch.float64, device=self.device))
        image = self._rows.double() @ probe
        weights = torch.cos(torch.arange(self.size, dtype=torch.float64, device=self.device))
        return {
            "rows": self.size,
            "width": self.width,
            "dtype": str(self.dtype),
            "content": float(image @ weights),
            "size": float(image.norm()),
        }


@dataclass(frozen=True, eq=False, repr=False)
class SoftmaxDirections:
    """Lᵀ and L: scaled differences p_i − e_c' on logit space, accurate where p is one-hot.

    ``scale[i, c'] · J_iᵀ(p_i − e_c')`` is the vector of sample i and cross-class c'. With scale
    √(p_{i,c'}/n), L Lᵀ = blkdiag(diag p_i − p_i p_iᵀ)/n.
    """

    probabilities: Float[Tensor, "n C"]
    scale: Float[Tensor, "n C"]

    def differences(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """Lᵀu: ⟨vector_{i,c'}, v⟩ from u = J v."""
        return self.scale[:, :, None] * mean_minus_each(self.probabilities, columns)

    def coefficients(self, amounts: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """L x: r with Jᵀ r = Σ_{i,c'} amounts_{i,c'} · vector_{i,c'}."""
        return mean_minus_each_transposed(self.probabilities, self.scale[:, :, None] * amounts)


@dataclass(frozen=True, eq=False, repr=False)
class PartForm(LogitForm):
    """K = L P Lᵀ: one part of G as JᵀKJ, in O(p) memory (docs/theory.md §1).

    A product costs one J v and one Jᵀ r, and none of the C² mean gradients, vectors of length p,
    is ever formed.
    """

    directions: SoftmaxDirections
    part: Part

    def __call__(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        inner = self.directions.differences(columns.double())
        projected = self.part.on_rows(inner.flatten(0, 1))
        return self.directions.coefficients(projected.view(inner.shape))

    def describe(self) -> str:
        return SYMBOLS.get(self.part.describe(), self.part.describe())


class GradientRows(Rows):
    """√w g with g_{i,c'} = J_iᵀ(p_i − e_c'), w_{i,c'} = p_{i,c'}/n: the rows of which G is DᵀD.

    D = LᵀJ (Papyan 2020, eq. 6.2), so S = LᵀΘL with the tangent kernel Θ = J Jᵀ.
    """

    def __init__(self, problem: Problem) -> None:
        require_problem(problem)
        self.problem = problem
        self.size, self.width = problem.num_samples * problem.num_classes, problem.size
        self.dtype, self.device = problem.dtype, problem.device
        root = (0.5 * problem.log_probabilities).exp() / problem.num_samples**0.5
        self.directions = SoftmaxDirections(problem.probabilities, root)

    def from_logits(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "m k"]:
        """Lᵀu: D V, from u = J V; float64."""
        return self.directions.differences(columns).flatten(0, 1)

    def to_logits(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "n C k"]:
        """L x, of which Jᵀ is Dᵀ x; float64."""
        shape = self.directions.scale.shape
        return self.directions.coefficients(columns.double().reshape(*shape, -1))

    def matmul(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "m k"]:
        return self.from_logits(self.problem.engine.jvp(columns)).to(self.dtype)

    def rmatmul(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "p k"]:
        return self.problem.engine.vjp(self.to_logits(columns))

    def gram(self) -> Float[Tensor, "m m"]:
        return self.conjugate(tangent_kernel(self.problem).matrix)

    def conjugate(self, theta: Float[Tensor, "nC nC"]) -> Float[Tensor, "m m"]:
        """LᵀΘL, in float64, a stretch of columns at a time."""
        shape = (*self.directions.scale.shape, -1)
        for_columns = [
            self.from_logits(few.double().reshape(shape)) for few in theta.split(ROWS_AT_ONCE, 1)
        ]
        left = torch.cat(for_columns, dim=1)
        del for_columns
        found = torch.cat(
            [self.from_logits(few.T.reshape(shape)) for few in left.split(ROWS_AT_ONCE, 0)], dim=1
        )
        return (found + found.T) / 2

    def form(self, part: Part | None) -> SymmetricOperator:
        if part is None:
            return GaussNewton(self.problem)
        return PullbackOperator(self.problem, PartForm(self.directions, part))

    def prepare(self, matvecs: int) -> None:
        self.problem.engine.reserve_jacobian(matvecs)

    def free_memory(self) -> int:
        return self.problem.engine.free_memory()

    @property
    def group(self) -> Group:
        return self.problem.group

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"rows": "gradients", **self.problem.fingerprint()}

    @property
    def symbol(self) -> str:
        return "G"


class RowsForm(SymmetricOperator):
    """DᵀPD, on vectors of length d."""

    def __init__(self, rows: Rows, part: Part | None) -> None:
        super().__init__(rows.width, rows.dtype, rows.device)
        self.rows, self.part = rows, part

    @property
    def group(self) -> Group:
        return self.rows.group

    def _product(self, columns: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
        seen = self.rows.matmul(columns)
        return self.rows.rmatmul(seen if self.part is None else self.part @ seen)

    def prepare(self, matvecs: int) -> None:
        self.rows.prepare(matvecs)

    def describe(self) -> str:
        name = "P_all" if self.part is None else self.part.describe()
        return SYMBOLS.get(name, name).replace("G", self.rows.symbol)

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"form": self.describe(), **self.rows.fingerprint()}


class RowsGram(SymmetricOperator):
    """S = D Dᵀ (m × m) by products: one Dᵀ x and one D v each, as a product with V.

    >>> model = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> S = RowsGram(GradientRows(Problem(model, (torch.eye(2), torch.tensor([0, 1])))))
    >>> torch.linalg.eigvalsh(S.to_dense()).numpy().round(3) + 0.0
    array([0.  , 0.  , 0.25, 0.75], dtype=float32)
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows.size, rows.dtype, rows.device)
        self.rows = rows

    @property
    def group(self) -> Group:
        return self.rows.group

    def prepare(self, matvecs: int) -> None:
        self.rows.prepare(matvecs)

    def describe(self) -> str:
        return "Gram matrix of rows"

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"operator": "gram", **self.rows.fingerprint()}

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        few = columns.split(COLUMNS_AT_ONCE, 1)
        return torch.cat([self.rows.matmul(self.rows.rmatmul(part)) for part in few], dim=1)


SYMBOLS = {
    "P_all": "G",
    "P_global_mean": "G_global",
    "P_between_class": "G_class",
    "P_cross_class": "G_cross",
    "P_within_class": "G_within",
    "P_own_class": "G_{c=c'}",
    "P_means": "G_means",
}


def without(symbol: str, part: str) -> str:
    """What is left of a second moment without a part, as figures call it.

    >>> without("H", "between_class")
    'H − H_class'
    """
    return f"{symbol} − {SYMBOLS[f'P_{part}'].replace('G', symbol)}"
