"""Rows with class structure: D, by products with D and Dᵀ.

Row (i, c') of D is √w_{i,c'} v_{i,c'}ᵀ, number i·K + c' of m = nK. V = DᵀD (d × d) is the second
moment, and S = D Dᵀ (m × m) has its nonzero eigenvalues. What an array *is* differs only in how D
multiplies: to add another second moment to the library, write another subclass of :class:`Rows`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.class_structure.cells import Cells, Convention, weigh_gradients
from deepspec.class_structure.parts import Part
from deepspec.class_structure.streaming import StreamedCells, StreamedPart, streamed_cells
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

    def nulls(self) -> Float[Tensor, "n K"] | None:
        """Unit vectors u_i ≥ 0 with Σ_c' u_{i,c'} · (row i, c') = 0, where that is known."""
        return None

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
    """Vectors that are at hand as a tensor; ``symbol`` is what tables call the second moment."""

    def __init__(
        self,
        vectors: Float[Tensor, "m d"],
        root_weights: Float[Tensor, " m"],
        symbol: str = "V",
    ) -> None:
        self._rows = (vectors.double() * root_weights[:, None]).to(vectors.dtype)
        self._symbol = symbol
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

    @property
    def symbol(self) -> str:
        return self._symbol

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

    ``scale[i, c'] · J_iᵀ(p_i − e_c')`` is the vector of row i and cross-class c'. With scale
    √(w_i p_{i,c'}), L Lᵀ = blkdiag(w_i (diag p_i − p_i p_iᵀ)).
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
class LossDirections:
    """Lᵀ and L with L Lᵀ = blkdiag(w_i ∂²ℓ_i/∂f²), for a loss without classes."""

    problem: Problem

    def differences(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """Lᵀu."""
        return self._root * self.problem.criterion.root_transposed(*self._given, columns)

    def coefficients(self, amounts: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """L x."""
        return self._root * self.problem.criterion.root(*self._given, amounts)

    @property
    def _given(self) -> tuple[Tensor, Tensor]:
        everything = slice(0, self.problem.num_rows)
        return self.problem.states(everything), self.problem.hessian_targets(everything)

    @property
    def _root(self) -> Float[Tensor, "n 1 1"]:
        return self.problem.weights.sqrt()[:, None, None]


def cells_of(
    problem: Problem,
    convention: Convention = "jmlr2020",
    grouping: Int[Tensor, " C"] | None = None,
) -> Cells:
    """The cells of a problem's extended gradients, of classes or of groups of them.

    Raises
    ------
    ValueError
        If its loss has no classes.
    """
    problem.require_classes()
    if not problem.keeps_logits:
        return streamed_cells(problem, convention, grouping)
    return weigh_gradients(
        problem.log_probabilities,
        problem.labels,
        problem.dtype,
        convention,
        problem.weights.log(),
        grouping,
    )


def directions(problem: Problem) -> SoftmaxDirections | LossDirections:
    """The root of G on logit space: that of the softmax, or of the loss's own Hessian."""
    if not problem.criterion.has_classes:
        return LossDirections(problem)
    root = (0.5 * problem.log_probabilities).exp() * problem.weights.sqrt()[:, None]
    return SoftmaxDirections(problem.probabilities, root)


@dataclass(frozen=True, eq=False, repr=False)
class PartForm(LogitForm):
    """K = L P Lᵀ: one part of G as JᵀKJ, in O(p) memory (docs/theory.md §1).

    A product costs one J v and one Jᵀ r, and none of the C² mean gradients, vectors of length p,
    is ever formed.
    """

    directions: SoftmaxDirections | LossDirections
    part: Part

    def __call__(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        inner = self.directions.differences(columns.double())
        projected = self.part.on_rows(inner.flatten(0, 1))
        return self.directions.coefficients(projected.view(inner.shape))

    def describe(self) -> str:
        return SYMBOLS.get(self.part.describe(), self.part.describe())


class GradientRows(Rows):
    """√w g with g_{i,c'} = J_iᵀ(p_i − e_c'), w_{i,c'} = w_i p_{i,c'}: the rows of which G is DᵀD.

    D = LᵀJ (Papyan 2020, eq. 6.2), so S = LᵀΘL with the tangent kernel Θ = J Jᵀ. For losses without
    classes L is the root of the loss's own Hessian, L Lᵀ = blkdiag(w_i ∂²ℓ_i/∂f²).
    """

    def __init__(self, problem: Problem) -> None:
        require_problem(problem)
        self.problem = problem
        self.size, self.width = problem.num_rows * problem.num_classes, problem.size
        self.dtype, self.device = problem.dtype, problem.device

    @cached_property
    def directions(self) -> SoftmaxDirections | LossDirections:
        """L, of all rows."""
        return directions(self.problem)

    def from_logits(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "m k"]:
        """Lᵀu: D V, from u = J V; float64."""
        return self.directions.differences(columns).flatten(0, 1)

    def to_logits(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "n C k"]:
        """L x, of which Jᵀ is Dᵀ x; float64."""
        shape = (self.problem.num_rows, self.problem.num_classes)
        return self.directions.coefficients(columns.double().reshape(*shape, -1))

    def matmul(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "m k"]:
        return self.from_logits(self.problem.engine.jvp(columns)).to(self.dtype)

    def rmatmul(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "p k"]:
        return self.problem.engine.vjp(self.to_logits(columns))

    def gram(self) -> Float[Tensor, "m m"]:
        return self.conjugate(tangent_kernel(self.problem).matrix)

    def nulls(self) -> Float[Tensor, "n K"]:
        """√p_i: Σ_c' p_{i,c'} g_{i,c'} = 0."""
        return (0.5 * self.problem.log_probabilities).exp()

    def conjugate(self, theta: Float[Tensor, "nC nC"]) -> Float[Tensor, "m m"]:
        """LᵀΘL, in float64, a stretch of columns at a time."""
        shape = (self.problem.num_rows, self.problem.num_classes, -1)
        result = theta.new_empty(theta.shape, dtype=torch.float64)
        stretches = range(0, len(theta), ROWS_AT_ONCE)
        for some in (slice(start, start + ROWS_AT_ONCE) for start in stretches):
            result[:, some] = self.from_logits(theta[:, some].double().reshape(shape))
        # In place: one such matrix may be all that fits.
        for some in (slice(start, start + ROWS_AT_ONCE) for start in stretches):
            result[some] = self.from_logits(result[some].T.reshape(shape)).T
        return _symmetrized(result)

    def form(self, part: Part | None) -> SymmetricOperator:
        if part is None:
            return GaussNewton(self.problem)
        if isinstance(part.cells, StreamedCells):
            return PullbackOperator(
                self.problem, StreamedPart(part.cells, part, lambda: SYMBOLS[part.describe()])
            )
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


def _symmetrized(matrix: Float[Tensor, "m m"]) -> Float[Tensor, "m m"]:
    """(M + Mᵀ)/2 in place of M."""
    stretches = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(matrix), ROWS_AT_ONCE)]
    for place, rows in enumerate(stretches):
        for columns in stretches[place:]:
            mean = (matrix[rows, columns] + matrix[columns, rows].T) / 2
            matrix[rows, columns], matrix[columns, rows] = mean, mean.T
    return matrix


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
