"""Which of several right ways is fastest, or possible, here: decided once, by trying."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.autodiff import (
    HessianProducts,
    JacobianProducts,
    LogitGradient,
    ReverseJacobian,
    ReverseOverForward,
    ReverseOverReverse,
    TransientJacobian,
)
from deepspec.engine.derivative_checks import (
    NESTINGS,
    REVERSE_TWICE,
    ROUTES,
    SLOWER,
    agrees_together,
    attempt,
    first_order_route,
    probe,
    right_nestings,
    weights_like,
)
from deepspec.engine.plan import Plan

MOST_COLUMNS, WORTH_TRYING = 16, 16
COLUMNS = "columns at once: {}"
TURNS, LONG = 3, 0.5


class Autotuner:
    """Decides, and remembers in ``plan`` what was decided; see :mod:`.plan`."""

    def __init__(self, rounding: float) -> None:
        self.plan: Plan = {}
        #: By how much, relatively, two right ways may differ.
        self.rounding = rounding

    def route(self, functions: Iterable[LogitFunction]) -> type[TransientJacobian]:
        """How J v is computed on this model; found out once, on each of the batches.

        In forward mode if that is there and right; else in reverse mode twice, or row by row.

        Raises
        ------
        WrongDerivative
            If every way is wrong.
        """
        if "forward mode" not in self.plan:
            route, fault = first_order_route(functions, self.rounding)
            if fault:
                warnings.warn(f"{fault}; {SLOWER[route]}", RuntimeWarning, stacklevel=5)
            self.plan["forward mode"] = route
        return ROUTES[str(self.plan["forward mode"])]

    def forward_mode(self, function: LogitFunction) -> bool:
        """Whether forward mode works on the model."""
        return self.route([function]) is TransientJacobian

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
            names = list(NESTINGS) if self.forward_mode(function) else [REVERSE_TWICE]
            right = right_nestings(function, names)
            ways = {name: NESTINGS[name](function, gradient) for name in right}
            agree = [n for n in right[:-1] if self._same(ways[n], function, gradient, right[-1])]
            vector, scratch = probe(function, 0), probe(function, 1)
            works = {
                name: partial(ways[name].product, vector, scratch) for name in (*agree, right[-1])
            }
            self.plan["hessian: nesting"] = fastest(works, vector.device)
        return NESTINGS[str(self.plan["hessian: nesting"])]

    def transient(self, function: LogitFunction) -> type[TransientJacobian]:
        """Products with J of a batch that is not held."""
        return self.route([function])

    def agrees_to_first_order(self, held: JacobianProducts, function: LogitFunction) -> bool:
        """Whether J v and Jᵀ r are what a forward and a backward pass give.

        A model that writes to its tensors in place can be traced wrongly, and a layer whose
        first dimension is not the sample has another formula.
        """
        vector = probe(function, 0)
        direct = self.transient(function)(function)
        pushed, expected = held.jvp(vector), direct.jvp(vector)
        weights = weights_like(expected)
        found, pulled = torch.zeros_like(vector), torch.zeros_like(vector)
        held.vjp(weights, found)
        direct.vjp(weights, pulled)
        return all(
            float((ours - theirs).norm()) <= self.rounding * float(theirs.norm())
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
        return bool(worked) and error <= self.rounding * float(expected.norm())

    def known_columns_at_once(self, batch: JacobianProducts) -> int | None:
        """What :meth:`columns_at_once` found before, if it did."""
        known = self.plan.get(COLUMNS.format(type(batch).__name__))
        return None if known is None else max(int(known), 1)

    def columns_at_once(self, batch: JacobianProducts, few: Tensor, room: int, count: int) -> int:
        """How many columns to take as one more batch dimension; 1 where nothing is gained.

        As many as fit into ``room`` bytes, if a few are pushed faster together than one by one.
        To find out takes some forty columns' time, which few columns are not worth.
        """
        name = COLUMNS.format(type(batch).__name__)
        if name not in self.plan:
            if count < WORTH_TRYING:
                return 1
            batch.jvp(few[:, 0].contiguous())
            fitting = min(MOST_COLUMNS, room // max(batch.column_bytes(), 1))
            ways = {"one by one": partial(batch.jvp_one_by_one, few)}
            # Reverse mode twice takes its columns one by one anyhow.
            fits = fitting >= few.shape[1] and not isinstance(batch, ReverseJacobian)
            if fits and agrees_together(batch, few, self.rounding):
                ways["together"] = partial(batch.jvp_together, few)
            self.plan[name] = fitting if fastest(ways, few.device) == "together" else 1
        return int(self.plan[name])


def fastest(candidates: Mapping[str, Callable[[], object]], device: torch.device) -> str:
    """The name of the fastest, each timed in turn, the first round not counted.

    Work so long that starting up is none of it is timed once.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    best = dict.fromkeys(candidates, float("inf"))
    for turn in range(TURNS):
        for name, work in candidates.items():
            synchronise(device)
            start = time.perf_counter()
            work()
            synchronise(device)
            seconds = time.perf_counter() - start
            if turn or seconds > LONG:
                best[name] = min(best[name], seconds)
        if min(best.values()) > LONG and max(best.values()) < float("inf"):
            break
    return min(best, key=best.__getitem__)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _then_true(work: Callable[[], object]) -> bool:
    work()
    return True
