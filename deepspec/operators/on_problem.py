"""What all operators of a classifier share: its size, precision, device, and choices."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from deepspec.engine.distributed import Group
from deepspec.operators.base import SymmetricOperator
from deepspec.problem import Problem


def require_problem(problem: object) -> None:
    """Raise TypeError, with the remedy, for a model where a problem is wanted."""
    if not isinstance(problem, Problem):
        raise TypeError(
            f"expected a deepspec.Problem, got {type(problem).__name__}; make one with "
            "deepspec.Problem(model, data)"
        )


class ProblemOperator(SymmetricOperator):
    """A symmetric operator on the parameters of a problem."""

    problem: Problem

    @property
    def size(self) -> int:
        return self.problem.size

    @property
    def dtype(self) -> torch.dtype:
        return self.problem.dtype

    @property
    def epsilon(self) -> float:
        return torch.finfo(self.problem.precision).eps

    @property
    def device(self) -> torch.device:
        return self.problem.device

    @property
    def group(self) -> Group:
        return self.problem.group

    def plan(self) -> dict[str, str | int]:
        return dict(self.problem.plan)

    def follow(self, plan: Mapping[str, str | int]) -> None:
        if plan != self.problem.plan:
            self.problem.plan = dict(plan)
