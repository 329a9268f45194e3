"""When batches are held: once the products to come pay for it, and only if that is faster."""

import time

import pytest
import torch

from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.cache import BatchCache, CachedProduct, CacheStrategy


class Batch:
    """Something of a known size that takes a known time to use."""

    def __init__(self, size: int, seconds: float) -> None:
        self.size, self.seconds = size, seconds

    def bytes(self) -> int:
        return self.size


class Samples:
    samples = 2


def purpose(built: list[str], quick: float = 0.0, size: int = 8) -> CachedProduct[Batch]:
    """Products of 20 ms; one way to hold that pays after 3 of them, and one after 10."""

    def way(name: str, seconds: float, cost: float) -> CacheStrategy[Batch]:
        def build(rows: slice, function: LogitFunction) -> Batch:
            built.append(name)
            return Batch(size, seconds)

        return CacheStrategy(build, products=cost, seconds=0.001, saves=0.5)

    return CachedProduct(
        "products",
        lambda rows, function: time.sleep(0.02),
        lambda batch, function: time.sleep(batch.seconds),
        {"early": way("early", 0.005, 1.3), "late": way("late", quick, 4.8)},
    )


def holding(plan: dict[str, str | int], budget: int | float = 100) -> BatchCache:
    def functions():
        for start in range(0, 6, 2):
            yield slice(start, start + 2), Samples()

    return BatchCache(functions, plan, budget, torch.device("cpu"))


def test_a_way_is_taken_when_the_products_announced_pay_for_it() -> None:
    built: list[str] = []
    plan: dict[str, str | int] = {}
    held, wanted = holding(plan), purpose(built)
    held.reserve(wanted, 2)
    assert (built, plan["products: kept"], held.batches(wanted)) == ([], "nothing", [])
    held.reserve(wanted, 1)
    assert built == ["early"] * 3
    assert plan == {"products: kept": "early", "products: batches held": 3}
    held.reserve(wanted, 1)
    assert built == ["early"] * 3
    held.reserve(wanted, 6)
    assert built == ["early"] * 3 + ["late"] * 3
    assert plan["products: kept"] == "late"
    assert {batch.seconds for batch in held.batches(wanted)} == {0.0}
    assert held.bytes() == 24


def test_a_slower_way_is_tried_once_and_not_taken() -> None:
    built: list[str] = []
    plan: dict[str, str | int] = {}
    held, wanted = holding(plan), purpose(built, quick=0.05)
    held.reserve(wanted, 10)
    held.reserve(wanted, 10)
    assert built == ["early", "late", "early", "early"]
    assert plan["products: kept"] == "early"


@pytest.mark.parametrize(("budget", "count"), [(0, 0), (7, 0), (8, 1), (23, 2), (24, 3)])
def test_no_more_than_the_budget_is_held(budget: int, count: int) -> None:
    plan: dict[str, str | int] = {}
    held, wanted = holding(plan, budget), purpose([])
    held.reserve(wanted, 100)
    assert len(held.batches(wanted)) == plan["products: batches held"] == count
    assert held.bytes() <= budget


def test_a_plan_is_followed_whatever_the_clock_and_the_budget() -> None:
    built: list[str] = []
    plan: dict[str, str | int] = {"products: kept": "early", "products: batches held": 2}
    held, wanted = holding(plan, 1), purpose(built)
    held.reserve(wanted, 1000)
    assert built == ["early"] * 2
    held.release()
    assert held.batches(wanted) == []
    held.reserve(wanted, 1000)
    assert built == ["early"] * 4
    held.follow({"products: kept": "nothing"})
    held.reserve(wanted, 1000)
    assert plan == {"products: kept": "nothing", "products: batches held": 0}
    assert len(built) == 4


def test_few_products_are_not_even_timed() -> None:
    taken: list[slice] = []
    wanted = purpose([])
    counted = CachedProduct(
        wanted.name, lambda rows, function: taken.append(rows), wanted.use, wanted.ways
    )
    held = holding({})
    held.reserve(counted, 2)
    assert taken == []
    held.reserve(counted, 1)
    assert len(taken) == 3
