"""Choices that all ranks must make alike: what one finds out is entered in every rank's plan."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from deepspec.classifier.shares import Shares
from deepspec.engine.autodiff import JacobianProducts
from deepspec.engine.autotune import COLUMNS, Autotuner
from deepspec.engine.cache import BatchCache
from deepspec.engine.cached_products import HELD_AS, LogitGradients
from deepspec.engine.derivative_checks import ROUTES
from deepspec.engine.distributed import Group
from deepspec.engine.jacobian_batches import JacobianBatches


class CommonChoices:
    """Decides together what :class:`.autotune.Autotuner` would decide on each rank by itself.

    Timings differ between ranks, and two ways of computing differ in rounding: were each to choose
    for itself, replicated vectors would drift apart.
    """

    def __init__(
        self,
        jacobians: JacobianBatches,
        autotuner: Autotuner,
        cache: BatchCache,
        group: Group,
        shares: Shares | None,
    ) -> None:
        self._jacobians, self._autotuner, self._cache = jacobians, autotuner, cache
        self._group, self._shares = group, shares

    def check(self) -> None:
        """Find out, at the first call, how the model can be differentiated, and rightly."""
        plan = self._autotuner.plan
        if "forward mode" not in plan:
            functions = (function for _, function in self._jacobians.functions())
            self._group.together(lambda: self._autotuner.route(functions))
            # What one rank's samples show holds for all.
            found = self._group.values(plan["forward mode"])
            plan["forward mode"] = max(found, key=list(ROUTES).index)

    def begin(self, kind: str, columns: Tensor) -> None:
        """See that all ranks are here with the same columns, and have decided how to go on."""
        if self._group.alone:
            return
        self._group.require_same(kind, columns)
        self.check()
        if columns.shape[-1] > 1 and kind != "hvp":
            self._columns(columns.shape[-1])

    def _columns(self, count: int) -> None:
        """How many columns at once, of batches that are held and of others."""
        jacobians, autotuner = self._jacobians, self._autotuner
        held = self._cache.held_everywhere(jacobians.purpose)
        some_are_not = self._shares is None or held < self._shares.full
        ways: list[JacobianProducts] = []

        def decide() -> dict[str, str | int]:
            _, function = next(jacobians.functions())
            kept = self._cache.batches(jacobians.purpose)
            ways.extend(batch for batch in kept[:1] if batch is not None)
            if some_are_not or not ways:
                ways.append(autotuner.transient(function)(function))
            for batch in ways:
                jacobians.columns_at_once(batch, count)
            return autotuner.plan

        way = str(autotuner.plan.get("jacobian: kept"))
        kinds = [HELD_AS[way]] if held else []
        if some_are_not:
            kinds.append(ROUTES[str(autotuner.plan["forward mode"])].__name__)
        self._decide([COLUMNS.format(kind) for kind in kinds], decide)

    def nesting(self, gradients: LogitGradients) -> None:
        """How gradients are differentiated again."""
        if self._group.alone:
            return

        def decide() -> dict[str, str | int]:
            rows, function = next(self._jacobians.functions())
            self._autotuner.nesting(function, gradients(rows, function))
            return self._autotuner.plan

        self._decide(["hessian: nesting"], decide)

    def _decide(self, names: list[str], decide: Callable[[], dict[str, str | int]]) -> None:
        """Enter the first rank's choices in every rank's plan, where one is missing."""
        plan = self._autotuner.plan
        if any(name not in plan for name in names):
            plan.update(self._group.from_first(decide))
