"""Everything of the form JᵀKJ: one operator, and the kernels K that act on logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.engine.kernels import Outputs
from deepspec.operators._contract import check_factor
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.combination import sum_in_words
from deepspec.operators.on_problem import ProblemOperator, require_problem
from deepspec.problem import Problem


class LogitForm(ABC):
    """A symmetric map K of logit space R^(n×C), applied to columns (n, C, k) in float64."""

    @abstractmethod
    def __call__(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """K u."""

    @abstractmethod
    def describe(self) -> str:
        """What JᵀKJ is, in a few words or a formula: for reprs, fingerprints and errors."""


class StreamedForm(LogitForm):
    """A kernel that couples rows by few sums: gathered over chunks of rows, and spread to them."""

    @abstractmethod
    def gather(self, columns: Float[Tensor, "b C k"], rows: slice, outputs: Outputs) -> Tensor:
        """What some rows add to the sums."""

    @abstractmethod
    def spread(
        self,
        gathered: Tensor,
        columns: Float[Tensor, "b C k"] | None,
        rows: slice,
        outputs: Outputs,
    ) -> Float[Tensor, "b C k"]:
        """K u on some rows, from the sums over all of them and, if wanted, from u there."""

    @property
    @abstractmethod
    def wants_columns(self) -> bool:
        """Whether u itself is wanted to spread."""

    def __call__(self, columns: Float[Tensor, "R C k"]) -> Float[Tensor, "R C k"]:
        raise NotImplementedError("a streamed kernel is applied by chunks only")


class PerSampleForm(LogitForm):
    """A kernel that acts on each row's C logits alone: K = blkdiag(K_1, …, K_R)."""

    @abstractmethod
    def on_rows(
        self, columns: Float[Tensor, "b C k"], rows: slice, outputs: Outputs | None = None
    ) -> Float[Tensor, "b C k"]:
        """K restricted to some rows, times their columns; ``outputs`` gives the rows' logits."""

    def __call__(self, columns: Float[Tensor, "R C k"]) -> Float[Tensor, "R C k"]:
        return self.on_rows(columns, slice(None))


@dataclass(frozen=True, eq=False)
class LossHessian(PerSampleForm):
    """∂²(loss)/∂(outputs)²: w_i ∂²ℓ_i/∂f² on row i, (diag p_i − p_i p_iᵀ)/n for cross-entropy.

    Papyan (2020), eq. 5.1.
    """

    problem: Problem

    def on_rows(
        self, columns: Float[Tensor, "b C k"], rows: slice, outputs: Outputs | None = None
    ) -> Float[Tensor, "b C k"]:
        problem = self.problem
        state = problem.states(rows, outputs)
        image = problem.criterion.hessian(state, problem.hessian_targets(rows), columns)
        return image * problem.weights[rows, None, None]

    def describe(self) -> str:
        return "G"


@dataclass(frozen=True, eq=False)
class FormCombination(LogitForm):
    """Σ a_i K_i."""

    terms: tuple[tuple[float, LogitForm], ...]

    def __call__(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        total = torch.zeros_like(columns)
        for factor, kernel in self.terms:
            total.add_(kernel(columns), alpha=factor)
        return total

    def describe(self) -> str:
        return sum_in_words((factor, kernel.describe()) for factor, kernel in self.terms)


class PerSampleCombination(FormCombination, PerSampleForm):
    """Σ a_i K_i of kernels that each act on a sample alone, and so does their sum."""

    def on_rows(
        self, columns: Float[Tensor, "b C k"], rows: slice, outputs: Outputs | None = None
    ) -> Float[Tensor, "b C k"]:
        total = torch.zeros_like(columns)
        for factor, kernel in self.terms:
            assert isinstance(kernel, PerSampleForm)
            total.add_(kernel.on_rows(columns, rows, outputs), alpha=factor)
        return total


class StreamedCombination(FormCombination, StreamedForm):
    """Σ a_i K_i of kernels that are streamed or act on each row alone."""

    def gather(self, columns: Float[Tensor, "b C k"], rows: slice, outputs: Outputs) -> Tensor:
        parts = [
            kernel.gather(columns, rows, outputs)
            for _, kernel in self.terms
            if isinstance(kernel, StreamedForm)
        ]
        return torch.stack(parts)

    def spread(
        self,
        gathered: Tensor,
        columns: Float[Tensor, "b C k"] | None,
        rows: slice,
        outputs: Outputs,
    ) -> Float[Tensor, "b C k"]:
        total: Tensor | None = None
        sums = iter(gathered)
        for factor, kernel in self.terms:
            if isinstance(kernel, StreamedForm):
                part = kernel.spread(next(sums), columns, rows, outputs)
            else:
                assert isinstance(kernel, PerSampleForm)
                assert columns is not None
                part = kernel.on_rows(columns, rows, outputs)
            total = factor * part if total is None else total.add_(part, alpha=factor)
        assert total is not None
        return total

    @property
    def wants_columns(self) -> bool:
        return any(not isinstance(k, StreamedForm) or k.wants_columns for _, k in self.terms)


def combine(*terms: tuple[float, LogitForm]) -> LogitForm:
    """Σ a_i K_i as one kernel."""
    flat: list[tuple[float, LogitForm]] = []
    for factor, kernel in terms:
        inner = kernel.terms if isinstance(kernel, FormCombination) else ((1.0, kernel),)
        flat.extend((factor * a, k) for a, k in inner)
    if len(flat) == 1 and flat[0][0] == 1.0:
        return flat[0][1]
    rowwise = all(isinstance(kernel, PerSampleForm) for _, kernel in flat)
    if not rowwise and all(isinstance(k, PerSampleForm | StreamedForm) for _, k in flat):
        return StreamedCombination(tuple(flat))
    return (PerSampleCombination if rowwise else FormCombination)(tuple(flat))


@dataclass(frozen=True, eq=False, repr=False)
class PullbackOperator(ProblemOperator):
    """JᵀKJ, J = ∂f/∂θ the Jacobian of all logits, K a kernel on logit space.

    One product is one J v and one Jᵀ r, whatever K is; sums and differences of such operators
    are again one, so that a knockout such as G − G_class takes the same products. A kernel that
    couples samples needs all of J v before Jᵀ r, and so a second forward pass of batches that are
    not held (of all but the last).
    """

    problem: Problem
    kernel: LogitForm

    def describe(self) -> str:
        return self.kernel.describe()

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        if isinstance(self.kernel, PerSampleForm):
            return self.problem.engine.per_sample_pullback_product(self.kernel.on_rows, columns)
        if isinstance(self.kernel, StreamedForm):
            return self.problem.engine.streamed_pullback_product(self.kernel, columns)
        return self.problem.engine.pullback_product(self.kernel, columns)

    def prepare(self, matvecs: int) -> None:
        """Make ready for many products: hold what pays and fits the memory budget."""
        self.problem.engine.reserve_jacobian(matvecs)

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"kernel": self.kernel.describe(), **self.problem.fingerprint()}

    def __add__(self, other: SymmetricOperator) -> SymmetricOperator:
        if isinstance(other, PullbackOperator) and other.problem is self.problem:
            kernel = combine((1.0, self.kernel), (1.0, other.kernel))
            return PullbackOperator(self.problem, kernel)
        return super().__add__(other)

    def __sub__(self, other: SymmetricOperator) -> SymmetricOperator:
        if isinstance(other, PullbackOperator) and other.problem is self.problem:
            kernel = combine((1.0, self.kernel), (-1.0, other.kernel))
            return PullbackOperator(self.problem, kernel)
        return super().__sub__(other)

    def __mul__(self, factor: float) -> SymmetricOperator:
        return PullbackOperator(self.problem, combine((check_factor(factor), self.kernel)))


class GaussNewton(PullbackOperator):
    """The Gauss-Newton (GGN) matrix of a loss, the Fisher matrix of a classifier, by its products.

    G = Σ_i w_i J_iᵀ (∂²ℓ_i/∂f²) J_i; for cross-entropy Σ_i w_i J_iᵀ (diag p_i − p_i p_iᵀ) J_i, with
    w_i = 1/n where rows count alike (Papyan 2020, eq. 5.1).

    >>> model = torch.nn.Linear(2, 2)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> G = GaussNewton(Problem(model, (torch.eye(2), torch.tensor([0, 1]))))
    >>> torch.linalg.eigvalsh(G.to_dense()).numpy().round(3) + 0.0
    array([0.  , 0.  , 0.  , 0.  , 0.25, 0.75], dtype=float32)
    """

    def __init__(self, problem: Problem) -> None:
        require_problem(problem)
        super().__init__(problem, LossHessian(problem))
