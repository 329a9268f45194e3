"""The Hessian of the loss, and what it holds beyond the Gauss-Newton matrix."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.checks import evaluate
from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.autodiff import LogitGradient
from deepspec.operators.on_problem import ProblemOperator, require_problem
from deepspec.problem import Problem


@dataclass(frozen=True, eq=False, repr=False)
class SecondDerivative(ProblemOperator):
    """∇²φ(θ) for φ a sum over samples of a function of each one's logits."""

    problem: Problem

    def __post_init__(self) -> None:
        require_problem(self.problem)

    @abstractmethod
    def logit_gradient(self, rows: slice, function: LogitFunction) -> LogitGradient:
        """∂φ/∂(logits) of the rows of a batch, as a function of their logits."""

    @property
    def _kind(self) -> str:
        return type(self).__name__.lower()

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        return self.problem.engine.hvp(self._kind, self.logit_gradient, columns)

    def prepare(self, matvecs: int) -> None:
        """Make ready for many products: hold what pays and fits the memory budget."""
        self.problem.engine.reserve_hessian(self._kind, self.logit_gradient, matvecs)

    def fingerprint(self) -> dict[str, str | int | float]:
        return {"operator": self._kind, **self.problem.fingerprint()}


class Hessian(SecondDerivative):
    """The second derivatives of the loss, as a matrix known by its products.

    Hess = ∂²/∂θ² (Papyan 2020, §2); weight decay is not part of it.

    >>> import torch
    >>> model = torch.nn.Linear(1, 2, bias=False)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> data = (torch.full((1, 1), 2.0), torch.tensor([0]))
    >>> Hessian(Problem(model, data)).to_dense()
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """

    def describe(self) -> str:
        return "Hess"

    def logit_gradient(self, rows: slice, function: LogitFunction) -> LogitGradient:
        problem = self.problem
        criterion = problem.criterion
        scale = problem.weights[rows, None].to(self.dtype)
        # Made here: inside, a trace would have to look at the labels.
        targets = criterion.prepared(problem.targets[rows], problem.num_classes, self.dtype)

        def gradient(logits: Float[Tensor, "b C"]) -> Float[Tensor, "b C"]:
            return criterion.residual(logits, targets) * scale

        return gradient


class Residual(SecondDerivative):
    """What the Hessian has beyond the Gauss-Newton matrix, known by its products.

    E = Hess − G = Σ_i,c' w_i (∂ℓ_i/∂f)_c' ∇²f_i,c', (p_i − y_i)/n for cross-entropy (Papyan 2020,
    eq. 5.2; "H" in his papers of 2018 and 2019).

    The Hessian of Σ_i w_i ⟨p_i − y_i, f_i⟩ with p held fixed, so nothing is subtracted. Of a linear
    model it is zero:

    >>> import torch
    >>> data = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])
    >>> E = Residual(Problem(torch.nn.Linear(1, 2, dtype=torch.float64), data))
    >>> float(E.to_dense().abs().max())
    0.0
    """

    def describe(self) -> str:
        return "E"

    def logit_gradient(self, rows: slice, function: LogitFunction) -> LogitGradient:
        problem = self.problem
        outputs = problem.logits[rows] if problem.keeps_logits else evaluate(function)
        fixed = (problem.residuals_of(outputs, rows) * problem.weights[rows, None]).to(self.dtype)
        return lambda logits: fixed
