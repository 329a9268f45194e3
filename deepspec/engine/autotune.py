"""Which of several right ways is fastest, or possible, here: decided once, by trying.

The decisions are a plan, plain strings by name. A plan goes into manifests, and can be given
back to repeat a computation bit for bit.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction, innermost_module
from deepspec.classifier.remedies import second_order_remedy
from deepspec.engine.autodiff import (
    HessianProducts,
    JacobianProducts,
    LogitGradient,
    ReverseJacobian,
    ReverseOverForward,
    ReverseOverReverse,
    TransientJacobian,
)
from deepspec.engine.errors import NoSecondDerivative, WrongDerivative, WrongSecondDerivative
from deepspec.engine.verification import (
    SHIFT,
    DoubleFunction,
    culprit,
    curved,
    first_order_is_wrong,
    second_order_is_wrong,
)

Result = TypeVar("Result")

MOST_COLUMNS, WORTH_TRYING = 16, 16
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


class Autotuner:
    """Decides, and remembers in ``plan`` what was decided."""

    def __init__(self) -> None:
        self.plan: dict[str, str | int] = {}

    def forward_mode(self, functions: Iterable[LogitFunction]) -> bool:
        """Whether forward mode works on the model; tried once, on each of the batches.

        It must be there, and agree with reverse mode: ⟨J v, r⟩ = ⟨v, Jᵀ r⟩ for random v and r.
        What it gets wrong (PyTorch's forgets padding_idx) may show in one batch only.
        """
        if "forward mode" not in self.plan:
            fault: str | None = None
            for index, function in enumerate(functions):
                fault = fault or _fault_of_forward_mode(function)
                if index & (index + 1) == 0:  # batches 0, 1, 3, 7, …
                    fault = _verified(function, fault)
            if fault:
                warnings.warn(
                    f"{fault}; using reverse mode twice, which is slower",
                    RuntimeWarning,
                    stacklevel=5,
                )
            self.plan["forward mode"] = "no" if fault else "yes"
        return self.plan["forward mode"] == "yes"

    def nesting(
        self, function: LogitFunction, gradient: LogitGradient
    ) -> type[ReverseOverForward] | type[ReverseOverReverse]:
        """The fastest way to differentiate a gradient here, of those that work on this model.

        Not every derivative rule of PyTorch can be differentiated again. Each nesting must give
        difference quotients of the gradient; those that do must agree on this batch.

        Raises
        ------
        NoSecondDerivative
            If no nesting works; :class:`WrongSecondDerivative` if one works and is wrong.
        """
        if "hessian: nesting" not in self.plan:
            names = list(NESTINGS) if self.forward_mode([function]) else [REVERSE_TWICE]
            right = _right_nestings(function, names)
            vector, scratch = probe(function, 0), probe(function, 1)
            works = {}
            for name in right:
                products = NESTINGS[name](function, gradient)
                if name == right[-1] or self._same(products, function, gradient, right[-1]):
                    works[name] = partial(products.product, vector, scratch)
            self.plan["hessian: nesting"] = fastest(works, vector.device)
        return NESTINGS[str(self.plan["hessian: nesting"])]

    def transient(self, function: LogitFunction) -> type[TransientJacobian] | type[ReverseJacobian]:
        """Products with J of a batch that is not held."""
        return TransientJacobian if self.forward_mode([function]) else ReverseJacobian

    def agrees_to_first_order(self, held: JacobianProducts, function: LogitFunction) -> bool:
        """Whether J v and Jᵀ r are what a forward and a backward pass give.

        A model that writes to its tensors in place can be traced wrongly, and a layer whose
        first dimension is not the sample has another formula.
        """
        vector = probe(function, 0)
        direct = self.transient(function)(function)
        pushed, expected = held.jvp(vector), direct.jvp(vector)
        weights = _weights(expected)
        found, pulled = torch.zeros_like(vector), torch.zeros_like(vector)
        held.vjp(weights, found)
        direct.vjp(weights, pulled)
        return all(
            float((ours - theirs).norm()) <= _rounding(vector) * float(theirs.norm())
            for ours, theirs in ((pushed, expected), (found, pulled))
        )

    def agrees(
        self, held: HessianProducts, function: LogitFunction, gradient: LogitGradient, kind: str
    ) -> bool:
        """Whether a linearised gradient gives what reverse mode twice gives; tried once a kind."""
        name = f"{kind}: linearised"
        if name not in self.plan:
            self.nesting(function, gradient)
            right = str(self.plan["hessian: nesting"])
            agrees = self._same(held, function, gradient, right)
            self.plan[name] = "right" if agrees else "wrong"
        return self.plan[name] == "right"

    def _same(
        self,
        products: HessianProducts,
        function: LogitFunction,
        gradient: LogitGradient,
        right: str,
    ) -> bool:
        vector = probe(function, 0)
        found, expected = torch.zeros_like(vector), torch.zeros_like(vector)
        NESTINGS[right](function, gradient).product(vector, expected)
        worked = attempt(_then_true, partial(products.product, vector, found))
        error = float((found - expected).norm())
        return bool(worked) and error <= _rounding(vector) * float(expected.norm())

    def columns_at_once(self, batch: JacobianProducts, few: Tensor, room: int, count: int) -> int:
        """How many columns to take as one more batch dimension; 1 where nothing is gained.

        As many as fit into ``room`` bytes, if a few are pushed faster together than one by one.
        To find out takes some forty columns' time, which few columns are not worth.
        """
        name = f"columns at once: {type(batch).__name__}"
        if name not in self.plan:
            if count < WORTH_TRYING:
                return 1
            batch.jvp(few[:, 0].contiguous())
            fitting = min(MOST_COLUMNS, room // max(batch.column_bytes(), 1))
            ways = {"one by one": partial(batch.jvp_one_by_one, few)}
            reverse = isinstance(batch, ReverseJacobian)
            if fitting >= few.shape[1] and not reverse and _agrees_together(batch, few):
                ways["together"] = partial(batch.jvp_together, few)
            self.plan[name] = fitting if fastest(ways, few.device) == "together" else 1
        return int(self.plan[name])


def fastest(candidates: Mapping[str, Callable[[], object]], device: torch.device) -> str:
    """The name of the fastest, each timed in turn, the first round not counted."""
    if len(candidates) == 1:
        return next(iter(candidates))
    best = dict.fromkeys(candidates, float("inf"))
    for turn in range(4):
        for name, work in candidates.items():
            synchronise(device)
            start = time.perf_counter()
            work()
            synchronise(device)
            if turn:
                best[name] = min(best[name], time.perf_counter() - start)
    return min(best, key=best.__getitem__)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def probe(function: LogitFunction, index: int) -> Float[Tensor, " p"]:
    """A random vector, always the same; never the caller's, which may miss what is wrong."""
    generator = torch.Generator().manual_seed(index)
    like = next(iter(function.parameters.values()))
    vector = torch.randn(function.space.size, generator=generator, dtype=like.dtype)
    return vector.to(like.device)


def _weights(like: Float[Tensor, "b C"]) -> Float[Tensor, "b C"]:
    """Coefficients with nothing special about them."""
    return torch.cos(torch.arange(like.numel(), device=like.device)).to(like).view_as(like)


def _fault_of_forward_mode(function: LogitFunction) -> str | None:
    """What is wrong with forward mode on a batch, in words; ``None`` if nothing is."""
    vector = probe(function, 0)

    def disagreement() -> bool:
        jacobian = TransientJacobian(function)
        pushed = jacobian.jvp(vector)
        weights, pulled = _weights(pushed), torch.zeros_like(vector)
        jacobian.vjp(weights, pulled)
        error = abs(float((pushed * weights).sum()) - float(pulled @ vector))
        return error > _rounding(vector) * float(pulled.norm() * vector.norm())

    disagrees = attempt(disagreement)
    if disagrees is None:
        # What remains must be possible; if it is not, its error is the one to see.
        reverse, pulled = ReverseJacobian(function.head(1)), torch.zeros_like(vector)
        reverse.vjp(reverse.jvp(vector), pulled)
        name = innermost_module(function.model, disagreement)
        return f"{name} cannot be differentiated in forward mode"
    if disagrees:
        name = type(function.model).__name__
        return f"forward mode and reverse mode give different derivatives of {name}"
    return None


def _rounding(vector: Tensor) -> float:
    return torch.finfo(vector.dtype).eps ** 0.5


def _verified(function: LogitFunction, fault: str | None) -> str | None:
    """What is wrong with forward mode, should difference quotients say so.

    Raises
    ------
    WrongDerivative
        If reverse mode twice is wrong as well.
    """
    wrong = partial(_is_wrong, first_order_is_wrong)
    if fault is None and not wrong(function, TransientJacobian):
        return None
    if not wrong(function, ReverseJacobian):
        return fault or f"forward mode gives a wrong derivative of {type(function.model).__name__}"
    name = culprit(
        DoubleFunction.from_function(function), lambda call: _or_raises(call, ReverseJacobian)
    )
    raise WrongDerivative(
        f"expected the derivatives of {name} to be difference quotients of what it computes, but "
        "they are not, in forward and in reverse mode; in an autograd.Function, correct backward "
        "and jvp, make backward differentiable (no once_differentiable, no detach), or write it "
        "with PyTorch's own operations"
    )


def _or_raises(function: LogitFunction, kind: type[TransientJacobian]) -> bool:
    return first_order_is_wrong(function, kind)


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


def _right_nestings(function: LogitFunction, names: list[str]) -> list[str]:
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
            "are right; for the Hessian, replace that layer, for example by remove_parametrizations"
        )
    raise NoSecondDerivative(
        f"expected {name} to have a second derivative, but PyTorch has none ({error}); "
        f"{second_order_remedy(str(error))}. First derivatives were checked and are right"
    ) from error


def _agrees_together(batch: JacobianProducts, few: Tensor) -> bool:
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
    return error <= _rounding(columns) * float(expected.norm())


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
