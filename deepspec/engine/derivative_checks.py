"""Which ways to derivatives are there and right on a model, whatever their speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction, innermost_module
from deepspec.classifier.remedies import second_order_remedy
from deepspec.engine.autodiff import (
    JacobianProducts,
    ReverseJacobian,
    ReverseOverForward,
    ReverseOverReverse,
    TransientJacobian,
)
from deepspec.engine.double_precision import DoubleFunction
from deepspec.engine.errors import NoSecondDerivative, WrongDerivative, WrongSecondDerivative
from deepspec.engine.jacobian_by_rows import JacobianByRows
from deepspec.engine.verification import (
    SHIFT,
    culprit,
    curved,
    first_order_is_wrong,
    second_order_is_wrong,
)

Result = TypeVar("Result")

#: Ways to J v, the fastest first, by what a plan says of forward mode.
FORWARD, REVERSE, BY_ROWS = "yes", "no", "by rows"
ROUTES: dict[str, type[TransientJacobian]] = {
    FORWARD: TransientJacobian,
    REVERSE: ReverseJacobian,
    BY_ROWS: JacobianByRows,
}
SLOWER = {
    REVERSE: "using reverse mode twice, which is slower",
    BY_ROWS: (
        "nor in reverse mode twice: each J v takes a backward pass for each sample and class, "
        "which is far slower; write the layer with operations that can be differentiated twice"
    ),
}
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
    "tensors was saved during",
)

# How it words that a backward pass cannot be differentiated.
ONLY_ONCE = (
    "is not implemented",
    "once_differentiable",
    "twice",
    "double backward",
)


def probe(function: LogitFunction, index: int) -> Float[Tensor, " p"]:
    """A random vector, always the same; never the caller's, which may miss what is wrong."""
    generator = torch.Generator().manual_seed(index)
    like = next(iter(function.parameters.values()))
    vector = torch.randn(function.space.size, generator=generator, dtype=like.dtype)
    return vector.to(like.device)


def weights_like(like: Float[Tensor, "b C"]) -> Float[Tensor, "b C"]:
    """Coefficients with nothing special about them."""
    return torch.cos(torch.arange(like.numel(), device=like.device)).to(like).view_as(like)


def first_order_route(
    functions: Iterable[LogitFunction], rounding: float
) -> tuple[str, str | None]:
    """The fastest right way to J v, and what is wrong with forward mode, if anything is.

    It must be there, agree with reverse mode, ⟨J v, r⟩ = ⟨v, Jᵀ r⟩ for random v and r, and give
    difference quotients. What PyTorch gets wrong (padding_idx) may show in one batch only.

    Raises
    ------
    WrongDerivative
        If every way is wrong.
    """
    route, fault = FORWARD, None
    for index, function in enumerate(functions):
        if route == FORWARD:
            route, fault = _possible(function, rounding)
        if index & (index + 1) == 0:  # batches 0, 1, 3, 7, …
            route, fault = _verified(function, route, fault)
    return route, fault


def _possible(function: LogitFunction, rounding: float) -> tuple[str, str | None]:
    """The first way that works on a batch, and what is wrong with forward mode, in words."""
    vector = probe(function, 0)

    def disagreement() -> bool:
        jacobian = TransientJacobian(function)
        pushed = jacobian.jvp(vector)
        weights, pulled = weights_like(pushed), torch.zeros_like(vector)
        jacobian.vjp(weights, pulled)
        error = abs(float((pushed * weights).sum()) - float(pulled @ vector))
        return error > rounding * float(pulled.norm() * vector.norm())

    disagrees = attempt(disagreement)
    if disagrees:
        name = type(function.model).__name__
        return REVERSE, f"forward mode and reverse mode give different derivatives of {name}"
    if disagrees is not None:
        return FORWARD, None
    # What remains must be possible; if it is not, its error is the one to see.
    route, one = REVERSE, function.head(1)
    try:
        reverse = ReverseJacobian(one)
        reverse.vjp(reverse.jvp(vector), torch.zeros_like(vector))
    except (RuntimeError, NotImplementedError) as error:
        if not any(phrase in str(error).lower() for phrase in ONLY_ONCE):
            raise
        JacobianByRows(one).jvp(vector)
        route = BY_ROWS
    name = innermost_module(function.model, disagreement)
    return route, f"{name} cannot be differentiated in forward mode"


def _verified(function: LogitFunction, route: str, fault: str | None) -> tuple[str, str | None]:
    """The first way, from this one on, whose products are difference quotients.

    Raises
    ------
    WrongDerivative
        If there is none.
    """
    for candidate in list(ROUTES)[list(ROUTES).index(route) :]:
        try:
            wrong = _is_wrong(first_order_is_wrong, function, ROUTES[candidate])
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError):
            if candidate == BY_ROWS:
                raise
            wrong = True
        if not wrong:
            name = type(function.model).__name__
            return candidate, fault or (
                None if candidate == FORWARD else f"forward mode gives a wrong derivative of {name}"
            )
    double = DoubleFunction.from_function(function)
    name = culprit(double, lambda call: first_order_is_wrong(call, ReverseJacobian))
    raise WrongDerivative(
        f"expected the derivatives of {name} to be difference quotients of what it computes, but "
        "they are not, in forward and in reverse mode; in an autograd.Function, correct backward "
        "and jvp, or write it with PyTorch's own operations"
    )


def _is_wrong(
    check: Callable[[LogitFunction, Callable], bool], function: LogitFunction, kind: Callable
) -> bool:
    """Whether a check fails at θ and, should a kink lie there, a little beside it."""
    for shift in (0.0, SHIFT):
        try:
            double = DoubleFunction.from_function(function, shift)
            double(double.parameters)
        except Exception:
            return False  # a model written for one precision alone cannot be judged in another
        if not check(double, kind):
            return False
    return True


def right_nestings(function: LogitFunction, names: list[str]) -> list[str]:
    """The nestings whose products are difference quotients of the gradient."""
    right, wrong = [], False
    error: Exception | None = None
    for name in names:
        try:
            # Reverse mode twice allows everything else to fail, and must itself be tried.
            if _is_wrong(second_order_is_wrong, function, NESTINGS[name]):
                wrong = True
            else:
                vector = probe(function, 0)
                NESTINGS[name](function.head(1), curved).product(vector, vector.clone())
                right.append(name)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as raised:
            error = raised
    if right:
        return right

    def fails(call: LogitFunction) -> bool:
        try:
            return second_order_is_wrong(call, ReverseOverReverse)
        except (RuntimeError, NotImplementedError):
            return True

    name = culprit(DoubleFunction.from_function(function), fails)
    if wrong:
        raise WrongSecondDerivative(
            f"expected second derivatives of {name} to be difference quotients of its gradient, "
            "but every way to compute them is wrong (weight_norm's rule is, in some versions, and "
            "that of a function which keeps an intermediate). First derivatives were checked and "
            "are right; for the Hessian, write that rule out with PyTorch's own operations on the "
            "same parameters, such as g * v / v.norm(dim=1, keepdim=True) (to remove a "
            "parametrization would make other parameters, and another Hessian)"
        )
    raise NoSecondDerivative(
        f"expected {name} to have a second derivative, but PyTorch has none ({error}); "
        f"{second_order_remedy(str(error))}. First derivatives were checked and are right"
    ) from error


def agrees_together(batch: JacobianProducts, few: Tensor, rounding: float) -> bool:
    """Whether columns can be pushed together, and give what they give one by one.

    What vmap refuses (packed sequences, data pointers, rules that a user did not write) it words
    in many ways, and one by one works all the same.
    """
    columns = torch.randn(few.shape, generator=torch.Generator().manual_seed(0), dtype=few.dtype)
    columns = columns.to(few.device)
    expected = batch.jvp_one_by_one(columns)
    try:
        found = batch.jvp_together(columns)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False
    error = float((found - expected).norm())
    return error <= rounding * float(expected.norm())


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
