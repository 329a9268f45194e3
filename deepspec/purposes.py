"""The two sorts of product there are, J with Jᵀ and ∇²φ, and the ways to hold a batch for each."""

from __future__ import annotations

from collections.abc import Callable

from deepspec.autodiff import (
    HeldHessian,
    HeldJacobian,
    JacobianProducts,
    LinearisedJacobian,
    LogitGradient,
)
from deepspec.batch_function import BatchFunction
from deepspec.choices import Choices, probe
from deepspec.holding import Purpose, Way
from deepspec.layers.jacobian import LayeredJacobian

LogitGradients = Callable[[slice], LogitGradient]


# Tracing and folding take about fifteen products and a second or two, and save a third of each.
TRACING = {"products": 15.0, "seconds": 1.5, "saves": 1 / 3}


def jacobian_purpose(
    choices: Choices, num_classes: int, budget: Callable[[], int]
) -> Purpose[HeldJacobian]:
    """J v and Jᵀ r: by layers where θ is made of such, or by the forward map linearised."""

    def layered(rows: slice, function: BatchFunction) -> HeldJacobian | None:
        one = LayeredJacobian.of(function.head(1))
        if one is None or one.bytes() * function.samples > budget():
            return None
        held = LayeredJacobian.of(function)
        return held if held and choices.agrees_to_first_order(held, function) else None

    def linearised(rows: slice, function: BatchFunction) -> HeldJacobian | None:
        if not choices.forward_mode([function]):
            return None
        held = LinearisedJacobian(function)
        return held if choices.agrees_to_first_order(held, function) else None

    def both(jacobian: JacobianProducts, function: BatchFunction) -> None:
        vector = probe(function, 0)
        jacobian.pull(jacobian.push(vector), vector.clone())

    def transient(rows: slice, function: BatchFunction) -> None:
        both(choices.transient(function)(function), function)

    ways = {
        # A backward pass for each class, a third of a product each, and the checks.
        "layers": Way(layered, products=4 + num_classes / 3, seconds=0.0, saves=1 / 2),
        "linearised": Way(linearised, **TRACING),
    }
    return Purpose("jacobian", transient, both, ways)


def hessian_purpose(choices: Choices, kind: str, gradients: LogitGradients) -> Purpose[HeldHessian]:
    """∇²φ v, by the gradient linearised."""

    def linearised(rows: slice, function: BatchFunction) -> HeldHessian | None:
        if not choices.forward_mode([function]):
            return None
        held = HeldHessian(function, gradients(rows))
        return held if choices.agrees(held, function, gradients(rows), kind) else None

    def transient(rows: slice, function: BatchFunction) -> None:
        vector = probe(function, 0)
        nesting = choices.nesting(function, gradients(rows))
        nesting(function, gradients(rows)).product(vector, vector.clone())

    def use(held: HeldHessian, function: BatchFunction) -> None:
        vector = probe(function, 0)
        held.product(vector, vector.clone())

    return Purpose(kind, transient, use, {"linearised": Way(linearised, **TRACING)})
