"""Speed of ccm, as ratios: ``python -m bench.ccm [--json FILE]``, from the repository root.

(Not ``python bench/ccm.py``: a script's own folder comes first on its path, and this file would
be imported as ccm.) Seconds depend on the machine; the ratios are what to compare. Set
OMP_NUM_THREADS=1 for numbers of one core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import ccm
from ccm.bayes import _entry
from ccm.softmax_moments import _coordinate_integrals


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The fastest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def fim_products() -> dict[str, float]:
    """One FIM-vector product at DC = 4,000, N = 100 a class: matrix-free, dense, and forming it."""
    model = ccm.CanonicalClassificationModel(400, 10, 3.0)
    X, _ = model.sample(per_class=100, seed=0)
    p = model.bayes_probabilities(X)
    v = np.random.default_rng(1).standard_normal(model.size)
    operator = ccm.fim_operator(X, p)
    forming = seconds(lambda: ccm.empirical_fim(X, p), 2)
    dense = ccm.empirical_fim(X, p)
    np.testing.assert_allclose(operator @ v, dense @ v, atol=1e-10)
    free, product = seconds(lambda: operator @ v, 20), seconds(lambda: dense @ v, 20)
    return {
        "matrix-free product (s)": free,
        "dense product (s)": product,
        "forming the dense FIM (s)": forming,
        "dense / matrix-free product": product / free,
        "forming / matrix-free product": forming / free,
    }


def bayes_spectra() -> dict[str, float]:
    """bayes_spectrum with nothing cached, t = 8 (the most costly of 0 to 8)."""

    def fresh(classes: int) -> Callable[[], object]:
        def work() -> None:
            _entry.cache_clear()
            _coordinate_integrals.cache_clear()
            ccm.bayes_spectrum(ccm.CanonicalClassificationModel(2 * classes, classes, 8.0))

        return work

    small, large = seconds(fresh(10), 5), seconds(fresh(100), 5)
    return {
        "bayes_spectrum C = 10 (s)": small,
        "bayes_spectrum C = 100 (s)": large,
        "C = 100 / C = 10": large / small,
    }


def importing() -> dict[str, float]:
    """What ``import ccm`` takes in a fresh interpreter, beside an empty one and NumPy's."""

    def run(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True), 5)

    return {
        "import ccm (s)": run("import ccm") - (empty := run("")),
        "import numpy, scipy.optimize (s)": run("import numpy, scipy.optimize") - empty,
    }


def sweep() -> dict[str, float]:
    """A sweep of 12 points at C = 10, D = 100, N = 1,000, two data sets a point."""
    points, replicates = 12, 2
    snrs = np.linspace(0.5, 6, points)
    whole = seconds(lambda: ccm.snr_sweep(100, 10, snrs, 1000, replicates=replicates), 1)
    model = ccm.CanonicalClassificationModel(100, 10, 3.0)
    X, y = model.sample(1000, 0)
    fit = seconds(lambda: ccm.fit_logistic(X, y, weight_decay=1e-4), 1)
    return {
        "12-point sweep (s)": whole,
        "one data set of it (s)": whole / (points * replicates),
        "one data set / one fit": whole / (points * replicates) / fit,
    }


def main(
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the numbers there.")] = None,
) -> None:
    """Measure, print a table, and write JSON if asked."""
    numbers = importing() | fim_products() | bayes_spectra() | sweep()
    table = Table("measure", "value", title="ccm")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.4g}")
    Console(highlight=False).print(table)
    if as_json is not None:
        as_json.parent.mkdir(parents=True, exist_ok=True)
        as_json.write_text(json.dumps(numbers, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    typer.run(main)
