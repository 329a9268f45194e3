"""The two sorts of product there are, J with Jᵀ and ∇²φ, and the ways to hold a batch for each."""

from __future__ import annotations

from collections.abc import Callable

from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.autodiff import (
    HeldHessian,
    HeldJacobian,
    JacobianProducts,
    LinearisedJacobian,
    LogitGradient,
)
from deepspec.engine.autotune import Autotuner
from deepspec.engine.cache import CachedProduct, CacheStrategy
from deepspec.engine.derivative_checks import probe
from deepspec.engine.layerwise_jacobian import LayeredJacobian

LogitGradients = Callable[[slice, LogitFunction], LogitGradient]

#: What holds a batch, by the way it is kept.
HELD_AS = {"layers": LayeredJacobian.__name__, "linearised": LinearisedJacobian.__name__}

# Tracing and folding take about fifteen products and a second or two, and save a quarter of each.
TRACING = {"products": 15.0, "seconds": 1.5, "saves": 1 / 4}


def jacobian_purpose(
    tuner: Autotuner, num_classes: int, budget: Callable[[], int]
) -> CachedProduct[HeldJacobian]:
    """J v and Jᵀ r: by layers where θ is made of such, or by the forward map linearised."""

    def layered(rows: slice, function: LogitFunction) -> HeldJacobian | None:
        one = LayeredJacobian.of(function.head(1))
        if one is None or one.bytes() * function.samples > budget():
            return None
        held = LayeredJacobian.of(function)
        return held if held and tuner.agrees_to_first_order(held, function) else None

    def linearised(rows: slice, function: LogitFunction) -> HeldJacobian | None:
        if not tuner.forward_mode(function):
            return None
        held = LinearisedJacobian(function)
        return held if tuner.agrees_to_first_order(held, function) else None

    def both(jacobian: JacobianProducts, function: LogitFunction) -> None:
        vector = probe(function, 0)
        jacobian.vjp(jacobian.jvp(vector), vector.clone())

    def transient(rows: slice, function: LogitFunction) -> None:
        both(tuner.transient(function)(function), function)

    ways = {
        # A backward pass for each class, a third of a product each, and the checks.
        "layers": CacheStrategy(layered, products=4 + num_classes / 3, seconds=0.0, saves=1 / 2),
        "linearised": CacheStrategy(linearised, **TRACING),
    }
    return CachedProduct("jacobian", transient, both, ways)


def hessian_purpose(
    tuner: Autotuner, kind: str, gradients: LogitGradients
) -> CachedProduct[HeldHessian]:
    """∇²φ v, by the gradient linearised."""

    def linearised(rows: slice, function: LogitFunction) -> HeldHessian | None:
        if not tuner.forward_mode(function):
            return None
        held = HeldHessian(function, gradients(rows, function))
        return held if tuner.agrees(held, function, gradients(rows, function), kind) else None

    def transient(rows: slice, function: LogitFunction) -> None:
        vector = probe(function, 0)
        nesting = tuner.nesting(function, gradients(rows, function))
        nesting(function, gradients(rows, function)).product(vector, vector.clone())

    def use(held: HeldHessian, function: LogitFunction) -> None:
        vector = probe(function, 0)
        held.product(vector, vector.clone())

    return CachedProduct(kind, transient, use, {"linearised": CacheStrategy(linearised, **TRACING)})
