"""What is wrong in a plan is said before any work, with the nearest right word."""

import json
from pathlib import Path
from typing import Any

import pytest

from deepspec.experiments.plan import name_of
from deepspec.experiments.reading import SHIPPED, plan_of, read_plan
from tests.deepspec.experiments.plans import tiny

GRID = {"data": "digits", "net": "mlp", "per_class": 3, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"gird": {}}, r"the plan, got 'gird'; did you mean grid"),
        ({"grid": 3}, r"a table \[grid\], got 3"),
        ({"grid": {}}, "found no data"),
        ({"grid": GRID | {"learning_rates": 1}}, "'learning_rates'; did you mean learning_rate"),
        ({"grid": GRID, "training": {"weigth_decay": 0}}, "did you mean weight_decay"),
        ({"grid": GRID, "training": {"zzz": 0}}, "there are epochs, momentum"),
        ({"grid": GRID, "training": {"epochs": 2}}, "epochs of at least 3 .*got 2"),
        ({"grid": GRID, "training": {"epochs": "3"}}, "epochs in .* like None, got '3'"),
        ({"grid": GRID, "training": {"snapshots": [999]}}, r"epochs in 0\.\.60"),
        ({"grid": GRID, "training": {"schedule": "steps"}}, "schedule .* got 'steps'"),
        ({"grid": GRID, "training": {"label_noise": 2.0}}, r"label_noise in 0\.\.1"),
        ({"grid": GRID, "analysis": {"hessian": 1}}, "hessian .* like True, got 1"),
        ({"grid": GRID, "analysis": {"draws": 1}}, "draws of at least 2"),
        ({"grid": GRID, "analysis": {"claims": "some"}}, 'claims "none", "last" or "all"'),
        ({"grid": GRID | {"data": "digit"}}, "data set .* 'digit'; did you mean digits"),
        ({"grid": GRID | {"net": "mpl"}}, "net that is known, got 'mpl'; did you mean mlp"),
        ({"grid": GRID | {"net": {"widths": [3]}}}, r"expected net .* tables"),
        ({"grid": GRID | {"per_class": []}}, r"list of int for per_class"),
        ({"grid": GRID | {"per_class": [3, 3]}}, "without repetitions"),
        ({"grid": GRID | {"per_class": 0}}, "per_class of at least 1"),
        ({"grid": GRID | {"learning_rate": -1}}, "learning rates above 0"),
        ({"grid": GRID | {"learning_rate": "papers:x"}}, '"papers:25", got'),
    ],
)
def test_what_is_wrong_is_named(entries: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan_of(entries)


def test_a_plan_comes_back_from_its_json() -> None:
    plan = tiny(seed=[0, 1])
    assert plan_of(json.loads(json.dumps(plan.as_dict()))) == plan
    assert len(list(plan.cells())) == 1


def test_files_and_plans_that_ship(tmp_path: Path) -> None:
    papers = read_plan("papers")
    assert len(papers.per_class) == 20
    assert len(papers.learning_rate) == 100
    assert {path.stem for path in SHIPPED.glob("*.toml")} >= {"demo", "papers"}
    with pytest.raises(FileNotFoundError, match=r"one of .*demo"):
        read_plan("nowhere")
    (tmp_path / "p.toml").write_text("a = ")
    with pytest.raises(ValueError, match="expected TOML"):
        read_plan(tmp_path / "p.toml")


def test_samples_and_options_are_checked_before_any_work() -> None:
    with pytest.raises(ValueError, match=r"1\.\.173, got 174"):
        tiny(per_class=[174]).check()
    with pytest.raises(ValueError, match=r"options that digits and mlp have.*widht"):
        tiny(net=[{"name": "mlp", "widht": 3}]).check()
    with pytest.raises(ValueError, match="pass root="):
        tiny(data=["cifar10"]).check()
    tiny().check()


def test_a_run_is_named_by_all_that_it_depends_on() -> None:
    plan, cell = tiny(), next(tiny().cells())
    names = {name_of(plan.run(cell, rate, seed)) for rate in (0.1, 0.2) for seed in (0, 1)}
    names.add(name_of(tiny(training={"weight_decay": 0.0}).run(cell, 0.1, 0)))
    assert len(names) == 5
    assert str(cell) == "mlp (widths [5]) on digits, 3 per class"
