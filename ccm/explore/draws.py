"""What takes long: simulated spectra and fits, in a process of their own that can be ended.

``python -m ccm.explore.draws`` reads one request, a line of JSON, from standard input and writes
lines of JSON: {"stage": …, "done": k, "total": m}, {"spectrum": […]} for each draw,
{"fitted_alpha": …, "train_error": …}, or {"error": …}. It ends when its standard input closes,
so that it never outlives the page that asked.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ccm.fisher import complements, empirical_fim
from ccm.logistic import ConvergenceError, fit_logistic
from ccm.model import CanonicalClassificationModel
from ccm.simulation import MEMORY_LIMIT
from ccm.symmetric import symmetric_probabilities

LARGEST_FIM = 10_000  # D·C of a FIM all of whose eigenvalues are computed
WEIGHT_DECAY = 1e-4
DRAWS = 8


def check_simulation(model: CanonicalClassificationModel, per_class: int, task: str) -> None:
    """That the task's work fits, before any of it.

    Raises
    ------
    ValueError
        If all eigenvalues of a FIM of more than 10000 parameters are asked for, or the samples
        take more than 4 GiB.

    Examples
    --------
    >>> check_simulation(CanonicalClassificationModel(1000, 10, 3.0), 1000, "spectrum")
    """
    if task == "spectrum" and model.size > LARGEST_FIM:
        raise ValueError(
            f"a simulated spectrum needs all eigenvalues of a FIM, at most D·C = {LARGEST_FIM}, "
            f"got {model.size}; lower D and N alike, which leaves the law as it is"
        )
    needed = 8 * model.size * per_class
    if needed > MEMORY_LIMIT:
        raise ValueError(
            f"the samples take {needed / 2**30:.3g} GiB, above {MEMORY_LIMIT / 2**30:g} GiB; "
            "lower N or D"
        )


def messages(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What the process answers to a request, message by message.

    Draw r of a spectrum has the seed of the request plus r.

    Raises
    ------
    ValueError
        If the model is bad or the work does not fit.
    ConvergenceError
        If a fit does not converge.

    Examples
    --------
    >>> request = dict(task="spectrum", dim=4, num_classes=2, snr=1.0, per_class=5, alpha=0.5)
    >>> found = list(messages({**request, "seed": 0, "draws": 1}))
    >>> [len(message["spectrum"]) for message in found if "spectrum" in message]
    [8]
    """
    model = CanonicalClassificationModel(request["dim"], request["num_classes"], request["snr"])
    N, C, task = request["per_class"], model.num_classes, request["task"]
    check_simulation(model, N, task)
    if task == "fit":
        yield {"stage": "sampling", "done": 0, "total": 2}
        X, y = model.sample(N, request["seed"])
        yield {"stage": f"fitting {model.size} weights to {y.size} samples", "done": 1, "total": 2}
        fit = fit_logistic(X, y, weight_decay=WEIGHT_DECAY, num_classes=C)
        rows = np.arange(y.size)
        fitted = float(complements(fit.probabilities(X))[rows, y].mean())
        yield {"fitted_alpha": min(fitted, 1 - 1 / C), "train_error": fit.error(X, y)}
        return
    draws = request["draws"]
    for draw in range(draws):
        name = f"draw {draw + 1} of {draws}: "
        yield {"stage": name + f"FIM of order {model.size}", "done": 2 * draw, "total": 2 * draws}
        X, y = model.sample(N, request["seed"] + draw)
        fim = empirical_fim(X, symmetric_probabilities(C, request["alpha"])[y])
        yield {"stage": name + "eigenvalues", "done": 2 * draw + 1, "total": 2 * draws}
        yield {"spectrum": np.linalg.eigvalsh(fim)[::-1].tolist()}


def _end_with_the_asker() -> None:
    sys.stdin.read()
    os._exit(1)


def answer() -> None:
    """Read one request from standard input and write its messages."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    try:
        for message in messages(request):
            print(json.dumps(message), flush=True)
    except (ValueError, ConvergenceError, MemoryError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the thread is still reading


if __name__ == "__main__":
    answer()
