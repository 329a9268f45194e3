"""What is kept between products: as many batches as are worth it and fit the memory budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch

from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.autotune import synchronise
from deepspec.engine.derivative_checks import attempt
from deepspec.engine.distributed import ALONE, Group
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
    group, first
        The ranks that data are spread over, and the number of this one's first batch. They
        decide together: the first rank measures, each says what fits.
    """

    def __init__(
        self,
        functions: Callable[[], Iterator[tuple[slice, LogitFunction]]],
        plan: dict[str, str | int],
        memory_budget: int | float,
        device: torch.device,
        group: Group = ALONE,
        first: int = 0,
    ) -> None:
        self._functions, self._plan, self._device = functions, plan, device
        self.memory_budget = memory_budget
        self._group, self._first, self._sharing = group, first, group.sharing()
        self._held: dict[str, list] = {}
        self._decisions: dict[str, CacheDecision] = {}

    def batches(self, purpose: CachedProduct[Kind]) -> list[Kind | None]:
        """This rank's first batches, ``None`` for those that are not held."""
        return self._held.get(purpose.name, [])

    def held_everywhere(self, purpose: CachedProduct[Kind]) -> int:
        """How many batches are held, by all ranks."""
        if purpose.name not in self._held:
            return 0
        return sum(map(len, places(self._plan.get(BATCHES.format(purpose.name), 0))))

    def budget_bytes(self) -> int:
        """What may be held between products, in bytes."""
        if isinstance(self.memory_budget, int):
            return self.memory_budget
        return int(self.memory_budget * free_memory(self._device) / self._sharing)

    def bytes(self) -> int:
        """What is held, in bytes."""
        held = [batch for batches in self._held.values() for batch in batches]
        return sum(batch.bytes() for batch in held if batch is not None)

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
        first, improved = self._improve_together(purpose, decision)
        self._plan[KEPT.format(purpose.name)] = decision.way
        if decision.way == NOTHING:
            self._plan[BATCHES.format(purpose.name)] = 0
        elif improved or not self.held_everywhere(purpose):
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

    def _improve_together(
        self, purpose: CachedProduct[Kind], decision: CacheDecision
    ) -> tuple[Kind | None, bool]:
        """Try what has come to pay, on the first rank; whether it found a faster way."""
        untried = {
            name: way
            for name, way in purpose.ways.items()
            if name not in decision.tried and way.is_worth_it(decision.products, float("inf"))
        }
        if not untried:
            return None, False
        better: Kind | None = None

        def found() -> dict[str, Any]:
            nonlocal better
            better = self._improve(purpose, decision, untried)
            decided = {"way": decision.way, "tried": sorted(decision.tried)}
            return {**decided, "improved": better is not None, "plan": dict(self._plan)}

        told = self._group.from_first(found)
        decision.way, decision.tried = told["way"], set(told["tried"])
        self._plan.clear()
        self._plan.update(told["plan"])
        return better, told["improved"]

    def _improve(
        self,
        purpose: CachedProduct[Kind],
        decision: CacheDecision,
        untried: Mapping[str, CacheStrategy[Kind]],
    ) -> Kind | None:
        """A first batch held in a way that is faster, if there is one."""
        better: Kind | None = None
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
    ) -> list[Kind | None]:
        """Hold the first batches, in order, while they fit.

        What is held for other purposes stays while there is room for both. A plan that was
        given says which, whatever the budget.
        """
        name = BATCHES.format(purpose.name)
        planned = places(self._plan[name]) if name in self._plan else None
        budget = float("inf") if planned is not None else self.budget_bytes()
        held: list[Kind | None] = []
        used, samples, others, forgot = 0, 0, self.bytes(), False
        for number, (rows, function) in enumerate(self._functions(), start=self._first):
            if planned is not None and not any(number in stretch for stretch in planned):
                if all(number >= stretch.stop for stretch in planned):
                    break
                held.append(None)
                continue
            if others and used * (1 + function.samples / max(samples, 1)) + others > budget:
                self._release_all_but(purpose.name)
                others, forgot = 0, True
            if used and used * (1 + function.samples / samples) > budget:
                break
            batch = first if first is not None and not held else attempt(way.build, rows, function)
            if batch is None or used + batch.bytes() > budget:
                break
            held.append(batch)
            used, samples = used + batch.bytes(), samples + function.samples
        mine = [number for number, one in enumerate(held, start=self._first) if one is not None]
        told = self._group.values([mine, forgot or bool(others and used + others > budget)])
        if not forgot and any(forgotten for _, forgotten in told):
            self._release_all_but(purpose.name)
        self._plan[name] = in_words({number for numbers, _ in told for number in numbers})
        return held

    def _release_all_but(self, name: str) -> None:
        for other in self._held.keys() - {name}:
            self._plan.pop(BATCHES.format(other), None)
        self.release()


def places(held: str | int) -> list[range]:
    """The numbers of the batches that a plan says are held, in stretches.

    >>> places(3), places("0-1 4")
    ([range(0, 3)], [range(0, 2), range(4, 5)])
    """
    if isinstance(held, int):
        return [range(held)]
    ends = [stretch.partition("-") for stretch in held.split()]
    return [range(int(first), int(last or first) + 1) for first, _, last in ends]


def in_words(numbers: set[int]) -> str | int:
    """The inverse of :func:`places`: a count where they are the first ones.

    >>> in_words({0, 1, 2}), in_words({0, 1, 4})
    (3, '0-1 4')
    """
    if numbers == set(range(len(numbers))):
        return len(numbers)
    starts = [n for n in sorted(numbers) if n - 1 not in numbers]
    ends = [n for n in sorted(numbers) if n + 1 not in numbers]
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
