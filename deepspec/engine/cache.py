"""What is kept between products: as many batches as are worth it and fit the memory budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch

from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.autotune import synchronise
from deepspec.engine.derivative_checks import attempt
from deepspec.memory import free_memory

NOTHING = "nothing"
KEPT, BATCHES = "{}: kept", "{}: batches held"


class Held(Protocol):
    """Something that is kept of a batch."""

    def bytes(self) -> int: ...


Kind = TypeVar("Kind", bound=Held)


@dataclass(frozen=True)
class CacheStrategy(Generic[Kind]):
    """One way to hold a batch: how, what that costs, and what it saves.

    The cost is given in products without it and in seconds beside, the gain as a share of each
    product to come; roughly, to know what is worth trying.
    """

    build: Callable[[slice, LogitFunction], Kind | None]
    products: float
    seconds: float
    saves: float

    def is_worth_it(self, products: int, seconds: float) -> bool:
        """Whether so many products, of so many seconds each, gain more than it costs."""
        return products * self.saves > self.products + self.seconds / seconds


@dataclass(frozen=True)
class CachedProduct(Generic[Kind]):
    """A sort of product: once from a batch that is not held, once from one that is."""

    name: str
    transient: Callable[[slice, LogitFunction], object]
    use: Callable[[Kind, LogitFunction], object]
    ways: Mapping[str, CacheStrategy[Kind]]


@dataclass
class CacheDecision:
    """How batches are held for one purpose, how long a product then takes, and what was tried."""

    way: str = NOTHING
    seconds: float | None = None
    products: int = 0
    tried: set[str] = field(default_factory=set)


class BatchCache:
    """Batches held between products, for each purpose apart.

    Making them takes time, so each way is tried once the products announced so far pay for it,
    and is taken if it is faster than what there is.

    Parameters
    ----------
    functions
        Starts a pass over the data.
    plan
        Where decisions are entered; one that stands there already is followed.
    memory_budget
        Bytes, or a share of the free memory, that may be held.
    device
        Whose memory it is.
    """

    def __init__(
        self,
        functions: Callable[[], Iterator[tuple[slice, LogitFunction]]],
        plan: dict[str, str | int],
        memory_budget: int | float,
        device: torch.device,
    ) -> None:
        self._functions, self._plan, self._device = functions, plan, device
        self.memory_budget = memory_budget
        self._held: dict[str, list] = {}
        self._decisions: dict[str, CacheDecision] = {}

    def batches(self, purpose: CachedProduct[Kind]) -> list[Kind]:
        """The first batches, as far as they are held."""
        return self._held.get(purpose.name, [])

    def budget_bytes(self) -> int:
        """What may be held between products, in bytes."""
        if isinstance(self.memory_budget, int):
            return self.memory_budget
        return int(self.memory_budget * free_memory(self._device))

    def bytes(self) -> int:
        """What is held, in bytes."""
        return sum(batch.bytes() for held in self._held.values() for batch in held)

    def release(self) -> None:
        """Forget everything that is held; decisions stand."""
        self._held = {}

    def follow(self, plan: Mapping[str, str | int]) -> None:
        """Forget everything, and decide as was decided in ``plan``."""
        self.release()
        self._decisions = {}
        self._plan.clear()
        self._plan.update(plan)

    def reserve(self, purpose: CachedProduct[Kind], products: int) -> None:
        """Hold batches for a purpose; this many more products are coming."""
        if self.memory_budget == 0:
            self._plan[BATCHES.format(purpose.name)] = 0
            return
        decision = self._decision(purpose)
        decision.products += products
        first = self._improve(purpose, decision)
        self._plan[KEPT.format(purpose.name)] = decision.way
        if decision.way == NOTHING:
            self._plan[BATCHES.format(purpose.name)] = 0
        elif first is not None or not self.batches(purpose):
            self._held.pop(purpose.name, None)
            # Forgetting others clears the table, so the new ones are entered afterwards.
            found = self._within_budget(purpose, purpose.ways[decision.way], first)
            self._held[purpose.name] = found

    def _decision(self, purpose: CachedProduct[Kind]) -> CacheDecision:
        if purpose.name not in self._decisions:
            given = self._plan.get(KEPT.format(purpose.name))
            decision = (
                CacheDecision()
                if given is None
                else CacheDecision(str(given), tried=set(purpose.ways))
            )
            self._decisions[purpose.name] = decision
        return self._decisions[purpose.name]

    def _improve(self, purpose: CachedProduct[Kind], decision: CacheDecision) -> Kind | None:
        """Try what has come to pay; a first batch held in a way that is faster, if there is one."""
        better: Kind | None = None
        untried = {
            name: way
            for name, way in purpose.ways.items()
            if name not in decision.tried and way.is_worth_it(decision.products, float("inf"))
        }
        if not untried:
            return None
        rows, function = next(self._functions())
        if decision.seconds is None:
            decision.seconds = self._seconds(partial(purpose.transient, rows, function))
        for name, way in untried.items():
            if not way.is_worth_it(decision.products, decision.seconds):
                continue
            decision.tried.add(name)
            built = attempt(way.build, rows, function)
            if built is None or built.bytes() > self.budget_bytes():
                continue
            seconds = self._seconds(partial(purpose.use, built, function))
            if seconds < decision.seconds:
                decision.way, decision.seconds, better = name, seconds, built
                self._plan.pop(BATCHES.format(purpose.name), None)
        return better

    def _seconds(self, work: Callable[[], object]) -> float:
        """The shorter of two turns, after one that is not counted."""
        best = float("inf")
        for turn in range(3):
            synchronise(self._device)
            start = time.perf_counter()
            work()
            synchronise(self._device)
            if turn:
                best = min(best, time.perf_counter() - start)
        return max(best, 1e-9)

    def _within_budget(
        self, purpose: CachedProduct[Kind], way: CacheStrategy[Kind], first: Kind | None
    ) -> list[Kind]:
        """Hold the first batches, in order, while they fit.

        What is held for other purposes stays while there is room for both. A plan that was
        given says how many, whatever the budget.
        """
        planned = self._plan.get(BATCHES.format(purpose.name))
        budget = float("inf") if planned is not None else self.budget_bytes()
        held: list[Kind] = []
        used, samples, others = 0, 0, self.bytes()
        for rows, function in self._functions():
            if len(held) == planned:
                break
            if others and used * (1 + function.samples / max(samples, 1)) + others > budget:
                self._release_all_but(purpose.name)
                others = 0
            if used and used * (1 + function.samples / samples) > budget:
                break
            batch = first if first is not None and not held else attempt(way.build, rows, function)
            if batch is None or used + batch.bytes() > budget:
                break
            held.append(batch)
            used, samples = used + batch.bytes(), samples + function.samples
        if others and used + others > budget:
            self._release_all_but(purpose.name)
        self._plan[BATCHES.format(purpose.name)] = len(held)
        return held

    def _release_all_but(self, name: str) -> None:
        for other in self._held.keys() - {name}:
            self._plan.pop(BATCHES.format(other), None)
        self.release()
