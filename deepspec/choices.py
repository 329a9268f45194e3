"""Which of several right ways is fastest, or possible, here: decided once, by trying.

The decisions are a plan, plain strings by name. A plan goes into manifests, and can be given
back to repeat a computation bit for bit.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.autodiff import (
    JacobianProducts,
    LogitGradient,
    ReverseOverForward,
    ReverseOverReverse,
    TransientJacobian,
)
from deepspec.batch_function import BatchFunction, innermost_module

Result = TypeVar("Result")

REVERSE_TWICE = "reverse over reverse"
NESTINGS: dict[str, type[ReverseOverForward] | type[ReverseOverReverse]] = {
    "reverse over forward": ReverseOverForward,
    REVERSE_TWICE: ReverseOverReverse,
}


# How PyTorch words that a function has no forward mode, or cannot be traced or
# differentiated once more.
FORBIDDEN = (
    "forward ad",
    "forward mode",
    "jvp",
    "setup_context",
    "tracing tensor",
    "data-depend",
    "modified by an inplace operation",
)


class Choices:
    """Decides, and remembers in ``plan`` what was decided."""

    def __init__(self) -> None:
        self.plan: dict[str, str | int] = {}

    def forward_mode(self, function: BatchFunction, vector: Float[Tensor, " p"]) -> bool:
        """Whether the model can be differentiated in forward mode; tried on one sample."""
        if "forward mode" not in self.plan:

            def try_one() -> Tensor:
                return TransientJacobian(function.head(1)).push(vector)

            possible = attempt(try_one) is not None
            if not possible:
                warnings.warn(
                    f"{innermost_module(function.model, try_one)} cannot be differentiated in "
                    "forward mode; using reverse mode twice, which is slower",
                    RuntimeWarning,
                    stacklevel=5,
                )
            self.plan["forward mode"] = "yes" if possible else "no"
        return self.plan["forward mode"] == "yes"

    def nesting(
        self, function: BatchFunction, gradient: LogitGradient, vector: Float[Tensor, " p"]
    ) -> type[ReverseOverForward] | type[ReverseOverReverse]:
        """The fastest way to differentiate a gradient here, of those that work on this model.

        Not every forward-mode rule of PyTorch can be differentiated again, so each candidate
        must first give what reverse mode twice gives.
        """
        if "hessian: nesting" not in self.plan:
            forward = self.forward_mode(function, vector)
            expected, scratch = torch.zeros_like(vector), torch.zeros_like(vector)
            ReverseOverReverse(function, gradient).product(vector, expected)
            tolerance = torch.finfo(vector.dtype).eps ** 0.5 * float(expected.norm())
            works = {}
            for name in NESTINGS if forward else (REVERSE_TWICE,):
                product = partial(NESTINGS[name](function, gradient).product, vector, scratch)
                scratch.zero_()
                worked = attempt(_then_true, product)
                if worked and float((scratch - expected).norm()) <= tolerance:
                    works[name] = product
            self.plan["hessian: nesting"] = fastest(works, vector.device)
        return NESTINGS[str(self.plan["hessian: nesting"])]

    def columns_together(self, batch: JacobianProducts, columns: Tensor) -> bool:
        """Whether several columns are pushed faster as one more batch dimension."""
        if "columns" not in self.plan:
            few = columns[:, : min(4, columns.shape[1])]
            self.plan["columns"] = fastest(
                {
                    "one by one": partial(batch.push_one_by_one, few),
                    "together": partial(batch.push_together, few),
                },
                columns.device,
            )
        return self.plan["columns"] == "together"


def fastest(candidates: Mapping[str, Callable[[], object]], device: torch.device) -> str:
    """The name of the fastest, each timed in turn, the first round not counted."""
    if len(candidates) == 1:
        return next(iter(candidates))
    best = dict.fromkeys(candidates, float("inf"))
    for turn in range(4):
        for name, work in candidates.items():
            _synchronise(device)
            start = time.perf_counter()
            work()
            _synchronise(device)
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return min(best, key=best.__getitem__)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _then_true(work: Callable[[], object]) -> bool:
    work()
    return True


def attempt(work: Callable[..., Result], *arguments: object) -> Result | None:
    """What ``work`` returns, or ``None`` where the model forbids forward mode or tracing."""
    try:
        return work(*arguments)
    except NotImplementedError:
        return None
    except RuntimeError as error:
        if any(phrase in str(error).lower() for phrase in FORBIDDEN):
            return None
        raise
