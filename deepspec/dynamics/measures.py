"""What a :class:`~deepspec.dynamics.Recorder` can measure, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from deepspec.class_structure import ClassStructure
from deepspec.krylov import NotConverged, top_eigenpairs, trace
from deepspec.layerwise.collapse import neural_collapse
from deepspec.operators import GaussNewton, Hessian, SymmetricOperator
from deepspec.problem import Problem

Row = dict[str, float]


@dataclass(frozen=True)
class Moment:
    """A net at one step, and what several measures share.

    Attributes
    ----------
    problem
        Its spectra's source.
    seed
        Of start vectors and probes: the same at every step.
    matvecs
        For the trace of each part.
    tolerance
        Of eigenpairs: their residual relative to the eigenvalue; an eigenvalue's own error is
        about its square.
    """

    problem: Problem
    seed: int
    matvecs: int
    tolerance: float
    _values: dict[str, torch.Tensor] = field(default_factory=dict)

    def top(self, name: str, operator: Callable[[Problem], SymmetricOperator]) -> torch.Tensor:
        """The C + 1 largest eigenvalues, descending; NaN where they were not found."""
        if name not in self._values:
            wanted = self.problem.num_classes + 1
            try:
                pairs = top_eigenpairs(
                    operator(self.problem), wanted, tol=self.tolerance, seed=self.seed
                )
            except NotConverged as error:
                pairs = error.pairs
            values = torch.full((wanted,), torch.nan, dtype=torch.float64)
            found = pairs.values[:wanted].double().cpu()
            values[: len(found)] = found
            self._values[name] = values
        return self._values[name]


OPERATORS: dict[str, Callable[[Problem], SymmetricOperator]] = {"G": GaussNewton, "Hess": Hessian}


def _loss(moment: Moment) -> Row:
    return {"loss": moment.problem.loss, "error_rate": moment.problem.error_rate}


def _gradient(moment: Moment) -> Row:
    return {"gradient_norm": float(moment.problem.gradient().norm())}


def _outliers(moment: Moment) -> Row:
    return {
        f"{name}/{place}": float(value)
        for name, operator in OPERATORS.items()
        for place, value in enumerate(moment.top(name, operator)[:-1], start=1)
    }


def _edge(moment: Moment) -> Row:
    return {f"{name}/edge": float(moment.top(name, make)[-1]) for name, make in OPERATORS.items()}


def _traces(moment: Moment) -> Row:
    operators: dict[str, SymmetricOperator] = {
        "G": GaussNewton(moment.problem),
        **ClassStructure(moment.problem).named(),
        "Hess": Hessian(moment.problem),
    }
    row: Row = {}
    for name, operator in operators.items():
        found = trace(operator, moment.matvecs, seed=moment.seed)
        row[f"trace/{name}"] = found.value
        row[f"trace/{name}/error"] = found.standard_error
    return row


def _collapse(moment: Moment) -> Row:
    problem = moment.problem
    features: list[torch.Tensor] = []
    weights: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    for _, function in problem.functions():
        head = classifier_head(function.model, problem.num_classes)

        def note(module: nn.Linear, inputs: tuple[torch.Tensor, ...]) -> None:
            # Inside, the module's weights are the problem's.
            features.append(inputs[0])
            weights.append((module.weight, module.bias))

        handle = head.register_forward_pre_hook(note)
        try:
            with torch.no_grad():
                function(function.parameters)
        finally:
            handle.remove()
    found = neural_collapse(torch.cat(features), problem.labels, *weights[0])
    return dict(vars(found))


def classifier_head(model: nn.Module, classes: int) -> nn.Linear:
    """The last linear map to C outputs.

    Raises
    ------
    ValueError
        If there is none.

    >>> classifier_head(nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 3), nn.Identity()), 3)
    Linear(in_features=5, out_features=3, bias=True)
    """
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    if not found:
        raise ValueError(
            f"expected a model that ends in a linear map to {classes} classes, found none; leave "
            '"neural_collapse" out'
        )
    return found[-1]


MEASURES: dict[str, Callable[[Moment], Row]] = {
    "loss": _loss,
    "gradient": _gradient,
    "edge": _edge,
    "outliers": _outliers,
    "traces": _traces,
    "neural_collapse": _collapse,
}
"""Loss and error; norm of the gradient; λ_{C+1} of G and Hess, the edge of the bulk; their top C;
traces of G, Hess and the four parts of G, with standard errors; neural collapse."""
