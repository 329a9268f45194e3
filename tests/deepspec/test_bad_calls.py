"""Every public function, called wrongly in many ways, says what it expected and what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deepspec
from deepspec import class_structure, dynamics, operators
from deepspec.krylov import NotConverged, baselines

GENERATOR = torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


X, y = numbers(8, 3), torch.arange(8) % 3
NET = nn.Linear(3, 3).double()
PROBLEM = deepspec.Problem(NET, (X, y))
OTHER = deepspec.Problem(nn.Linear(4, 3).double(), (numbers(8, 4), y))
FEW = deepspec.Problem(nn.Linear(3, 4).double(), (X, y))
A = deepspec.MatrixOperator(torch.diag(torch.arange(1.0, 13.0).double()))
V = torch.ones(12, dtype=torch.float64)
PAIRS = deepspec.top_eigenpairs(A, 2)
DENSITY = deepspec.log_spectral_density(A, 8)
ARRAY = deepspec.gradients(PROBLEM)
SPAN = deepspec.ColumnSpace(numbers(12, 2))
STRUCTURE = deepspec.ClassStructure(PROBLEM)
KERNEL = deepspec.tangent_kernel(PROBLEM)


class Broken(deepspec.SymmetricOperator):
    """A user's own, which returns what it should not."""

    def __init__(self, returned: Callable[[Tensor], Any], size: int = 12) -> None:
        super().__init__(size, torch.float64, torch.device("cpu"))
        self.returned = returned

    def _product(self, columns: Tensor) -> Tensor:
        return self.returned(columns)


def follow(plan: Any) -> None:
    PROBLEM.plan = plan


class WithoutASpace(deepspec.SymmetricOperator):
    def __init__(self) -> None: ...

    def _product(self, columns: Tensor) -> Tensor:
        return columns


def raises(_: Tensor) -> Tensor:
    raise ValueError("expected nothing, got columns")


NOT_NUMBERS = [
    None,
    "x",
    [],
    {},
    np.random.default_rng(0),
    object(),
    PROBLEM,
    PAIRS,
    nn.Linear,
    b"x",
]
STRANGE = [*NOT_NUMBERS, np.ones((2, 2)), torch.ones(3), torch.ones(2, 3, 4), torch.nan, lambda: 1]
ALWAYS = [v for v in STRANGE if v is not None]
OPERATORS = [
    *STRANGE,
    NET,
    3,
    np.eye(12),
    torch.eye(12),
    Broken(lambda columns: None),  # type: ignore[arg-type, return-value]
    Broken(lambda columns: columns.numpy()),
    Broken(lambda columns: columns[:5]),
    Broken(lambda columns: columns[:, 0]),
    Broken(lambda columns: columns.float()),
    Broken(lambda columns: columns.long()),
    Broken(lambda columns: columns * torch.nan),
    Broken(lambda columns: columns / 0),
    Broken(lambda columns: (columns, columns)),
    Broken(lambda columns: "columns"),
    Broken(raises),
    Broken(lambda columns: columns, size=0),
    Broken(lambda columns: columns, size=-1),
    Broken(lambda columns: columns, size=2.5),  # type: ignore[arg-type]
    WithoutASpace(),
]
COUNTS = [*ALWAYS, 0, -1, 1.5, True, 10**30]
POSITIVE = [*ALWAYS, 0, -1, torch.inf, True, torch.ones(1)]
TEXT = ["x", 3, [], {}, np.ones(2), torch.ones(3), PAIRS, {1}]
SEEDS = [*ALWAYS, -1, 1.5, True, np.random.RandomState(0)]
PATHS = [b"x", 3, [], PROBLEM, np.ones(2)]
PROBLEMS = [v for v in STRANGE if v is not PROBLEM] + [NET, A, 3]
VECTORS = [
    *STRANGE,
    V.numpy(),
    V.float(),
    V[:5],
    V.to_sparse(),
    torch.ones(12, dtype=torch.long),
    A,
]

ESTIMATORS: list[tuple[Callable, dict[str, Any], dict[str, list]]] = [
    (
        deepspec.top_eigenpairs,
        {},
        {"k": COUNTS, "which": TEXT, "tol": POSITIVE, "start": VECTORS[1:]},
    ),
    (deepspec.extreme_eigenvalues, {"steps": 4}, {"steps": COUNTS}),
    (
        deepspec.spectral_density,
        {"steps": 4},
        {
            "steps": COUNTS,
            "probes": COUNTS,
            "kappa": POSITIVE,
            "points": COUNTS,
            "margin": POSITIVE,
        },
    ),
    (
        deepspec.log_spectral_density,
        {"steps": 4},
        {"epsilon": POSITIVE, "per": TEXT, "reorthogonalize": TEXT},
    ),
    (deepspec.joined_spectrum, {"steps": 4, "k": 1}, {"k": COUNTS, "steps": COUNTS}),
    (deepspec.trace, {"matvecs": 8}, {"matvecs": COUNTS}),
    (deepspec.frobenius_norm, {"matvecs": 8}, {"matvecs": COUNTS}),
    (deepspec.lanczos, {"steps": 3, "start": V}, {"steps": COUNTS, "start": VECTORS}),
    (baselines.kernel_polynomial_density, {"steps": 4}, {"steps": COUNTS, "margin": POSITIVE}),
    (baselines.subspace_iteration, {"k": 1, "iterations": 2}, {"k": COUNTS, "iterations": COUNTS}),
]
OTHERS: list[tuple[Callable, dict[str, Any], dict[str, list]]] = [
    *(
        (kind, {"problem": PROBLEM}, {"problem": PROBLEMS})
        for kind in (deepspec.GaussNewton, deepspec.Hessian, deepspec.Residual)
    ),
    (deepspec.gradients, {"problem": PROBLEM}, {"problem": PROBLEMS, "convention": TEXT}),
    (deepspec.ClassStructure, {"problem": PROBLEM}, {"problem": PROBLEMS, "convention": TEXT}),
    (deepspec.tangent_kernel, {"problem": PROBLEM}, {"problem": PROBLEMS, "memory": [*ALWAYS, -1]}),
    (
        deepspec.exact_spectrum,
        {"A": deepspec.GaussNewton(PROBLEM)},
        {
            "A": [*STRANGE, A, deepspec.Hessian(PROBLEM)],
            "kernel": [*ALWAYS, deepspec.tangent_kernel(OTHER)],
        },
    ),
    (
        deepspec.attribute,
        {"problem": PROBLEM, "draws": 2, "steps": 2},
        {
            "problem": [*PROBLEMS, deepspec.GaussNewton(PROBLEM)],
            "test": [*PROBLEMS[1:], OTHER, FEW, ARRAY],
            "untrained": [*PROBLEMS[1:], OTHER],
            "convention": TEXT,
            "draws": [*ALWAYS, 0, 1, -1, 1.5, True],
            "steps": COUNTS[:-1],
            "seed": SEEDS,
            "checkpoint": PATHS,
        },
    ),
    (
        deepspec.ClassArray,
        {"vectors": numbers(8, 5), "labels": y},
        {
            "vectors": [*STRANGE, numbers(7, 5), numbers(8, 5) * torch.nan],
            "labels": [*STRANGE, y[:5], y.double(), -y],
            "weights": [*ALWAYS, -V[:8]],
        },
    ),
    (deepspec.MatrixOperator, {"matrix": A.matrix}, {"matrix": [*STRANGE, numbers(3, 3)]}),
    (
        deepspec.ColumnSpace,
        {"columns": numbers(12, 2)},
        {"columns": STRANGE, "relative_tolerance": [*ALWAYS, -1.0]},
    ),
    (deepspec.count_outliers, {"pairs": PAIRS}, {"which": TEXT, "threshold": POSITIVE}),
    (
        deepspec.fit_power_law,
        {"density": DENSITY, "interval": (0.1, 10.0)},
        {"density": STRANGE, "interval": [*STRANGE, (2, 1), (0, 1), (1, 2, 3)], "side": TEXT},
    ),
    (
        deepspec.Problem,
        {"model": NET, "data": (X, y)},
        {
            "model": [v for v in STRANGE if not callable(v) or isinstance(v, type)],
            "data": [v for v in STRANGE if not callable(v)],
            "num_classes": [*ALWAYS, 1, 5, True],
            "batch_size": COUNTS[:-1],
            "dtype": [*ALWAYS, torch.int64, torch.float16],
            "device": ["cuda:99", "mps", "nowhere", PROBLEM],
            "select": [v for v in ALWAYS if not callable(v)],
            "memory_budget": [*ALWAYS, -1, 1.5],
            "verify": [*ALWAYS, 1],
        },
    ),
    (A.project_out, {"projector": SPAN}, {"projector": [*STRANGE, deepspec.ColumnSpace(X)]}),
    (A.deflate, {"pairs": PAIRS}, {"pairs": [v for v in STRANGE if v is not PAIRS]}),
    (operators.Compression, {"operator": A, "projector": SPAN}, {"operator": STRANGE}),
    (A.__matmul__, {"vectors": V}, {"vectors": VECTORS}),
    (PROBLEM.one_hot, {"labels": y}, {"labels": STRANGE}),
    (follow, {}, {"plan": [v for v in STRANGE if not isinstance(v, dict)]}),
    (ARRAY.knock_out, {"part": "cross_class"}, {"part": TEXT, "how": TEXT}),
    *(
        (function, {"structure": STRUCTURE}, {"structure": STRANGE})
        for function in (
            class_structure.cell_means,
            class_structure.class_means,
            class_structure.own_class_means,
            class_structure.cross_class_deviations,
        )
    ),
    (
        class_structure.two_way_layout,
        {"gram": torch.eye(2), "weights": torch.ones(2), "cells": [(0, 1), (1, 0)]},
        {"gram": STRANGE, "weights": STRANGE, "cells": STRANGE},
    ),
    (
        dynamics.neural_collapse,
        {"features": X, "labels": y, "weight": NET.weight},
        {
            "features": STRANGE,
            "labels": [*STRANGE, y + 1],
            "weight": STRANGE,
            "bias": [*PROBLEMS[1:9], X],
        },
    ),
    (
        dynamics.snapshot_epochs,
        {"plan": "log:3", "epochs": 5},
        {"plan": STRANGE[:2], "epochs": ALWAYS},
    ),
    (dynamics.trajectory, {"snapshots": None, "quantity": len}, {"snapshots": STRANGE}),
    (
        deepspec.Recorder,
        {"source": NET, "data": (X, y)},
        {
            "what": ["x", 3, PAIRS, [np.ones(2)]],
            "every": COUNTS[:-1],
            "matvecs": COUNTS[:-1],
            "tolerance": POSITIVE,
            "budget": POSITIVE,
            "seed": SEEDS,
            "log": [3, [], PAIRS, b"x"],
        },
    ),
    (deepspec.Eigenpairs.load, {}, {"folder": PATHS}),
    (PAIRS.save, {}, {"folder": PATHS}),
    (deepspec.Attribution.load, {}, {"folder": PATHS}),
]
SHARED = {"seed": SEEDS, "checkpoint": PATHS}
CALLS = [
    (function, {**given, **({"A": A} if "operator" not in name else {"operator": A})}, more)
    for function, given, more in ESTIMATORS
    for name in ["extreme operator" if function is deepspec.extreme_eigenvalues else "A"]
]


def cases() -> list[Any]:
    found = []
    for function, given, wrong in [*CALLS, *OTHERS]:
        lists = {**wrong}
        if any(function is estimator for estimator, *_ in CALLS):
            name = "operator" if "operator" in given else "A"
            lists |= {name: OPERATORS, **SHARED}
        for argument, values in lists.items():
            word = f"{getattr(function, '__qualname__', function)}({argument})"
            found.append(pytest.param(function, given, argument, values, id=word))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("function", "given", "argument", "values"), cases())
def test_a_bad_call_is_refused_in_words(
    function: Callable, given: dict[str, Any], argument: str, values: list, tmp_path
) -> None:
    """Two dozen values for each argument: some two thousand calls in all."""
    for value in values:
        try:
            function(**{**given, argument: value})
        except (TypeError, ValueError, RuntimeError, ArithmeticError, OSError) as error:
            caught, said = error, str(error)
        else:
            raise AssertionError(f"{value!r:.100} was taken")
        assert re.search(r"expected", said), (value, said)
        assert "\n" not in said, said
        assert not isinstance(caught, NotImplementedError | NotConverged), said
