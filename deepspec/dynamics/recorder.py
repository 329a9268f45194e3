"""Spectra in one's own training loop: a call a step, at a bounded share of its time."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deepspec.arguments import as_path, check_above, check_whole, is_one_of, shown
from deepspec.dynamics.measures import MEASURES, Moment, Row
from deepspec.dynamics.trajectories import Trajectory
from deepspec.problem import Problem
from deepspec.seeds import Seed, whole_seed

Log = Callable[[dict[str, Any], int], object]


class Recorder:
    """Measures a net now and then while it is trained, and leaves the training as it was.

    Parameters, buffers, gradients, training flags and every random generator (PyTorch's, CUDA's,
    NumPy's, Python's) are after a call what they were before it. Probes and start vectors come
    from one seed and data are in one order, so curves over steps compare.

    Parameters
    ----------
    source
        The model that is being trained; or a function without arguments that returns a
        :class:`~deepspec.Problem` of the net as it is now.
    data
        The samples to measure on, with a model: anything a Problem takes, in a fixed order. A
        thousand or so are often enough; all steps see the same ones.
    what
        Names of :data:`~deepspec.dynamics.measures.MEASURES`, or functions of a
        :class:`~deepspec.Problem` that return numbers by name.
    every
        Measure at steps that are multiples of it.
    budget
        The most that measuring may take, as a share of the time spent outside it; what would take
        more is left out, but for the first. ``None``: no limit.
    log
        A file for lines of JSON, or any ``log(dict, step)``: ``wandb.log``, Accelerate's ``log``.
    seed, matvecs, tolerance
        Of probes and start vectors; for each trace; of residuals relative to the eigenvalue.
    clock
        Seconds, from anywhere.
    options
        For the Problem, such as ``batch_size`` or ``select``.

    Raises
    ------
    ValueError
        If a measure is unknown, or a number is out of its range.
    TypeError
        If there is neither a model with data nor a function.

    >>> net = torch.nn.Linear(2, 2)
    >>> recorder = Recorder(net, (torch.eye(2), torch.tensor([0, 1])), what=["loss"], every=10)
    >>> [recorder.record(step) is not None for step in (0, 5)]
    [True, False]
    >>> sorted(recorder.rows[0])
    ['error_rate', 'loss', 'seconds', 'skipped', 'step']
    """

    def __init__(
        self,
        source: nn.Module | Callable[[], Problem],
        data: Any = None,
        *,
        what: Sequence[str | Callable[[Problem], Row]] = ("loss", "edge", "outliers"),
        every: int = 100,
        budget: float | None = 0.05,
        log: str | Path | Log | None = None,
        seed: Seed = 0,
        matvecs: int = 16,
        tolerance: float = 1e-3,
        clock: Callable[[], float] = time.perf_counter,
        **options: Any,
    ) -> None:
        if not isinstance(what, list | tuple):
            what = [what]  # type: ignore[list-item]
        for measure in what:
            if not callable(measure) and not is_one_of(measure, MEASURES):
                raise ValueError(
                    f"expected measures out of {', '.join(MEASURES)}, or functions of a Problem; "
                    f"got {shown(measure)}"
                )
        check_whole(every, 1, "every")
        check_whole(matvecs, 4, "matvecs")
        check_above(tolerance, 0, "tolerance")
        if budget is not None:
            check_above(budget, 0, "budget, a share of the training's time,")
        if not (log is None or isinstance(log, str | Path) or callable(log)):
            raise TypeError(
                f"expected log as a path or a function of a row and a step, got {shown(log)}"
            )
        model = source if isinstance(source, nn.Module) else None
        if (model is None) != (data is None) or (model is None and not callable(source)):
            raise TypeError(
                "expected Recorder(model, data) or Recorder(function returning a Problem), got "
                f"{type(source).__name__} {'without' if data is None else 'and'} data"
            )
        self.rows: list[dict[str, Any]] = []
        self.skipped = 0
        self._source, self._model, self._data = source, model, data
        self._what, self._every, self._budget = tuple(what), every, budget
        self._settings = {"seed": whole_seed(seed), "matvecs": matvecs, "tolerance": tolerance}
        self._options = options
        self._log = append_to(Path(log)) if isinstance(log, str | Path) else log
        self._plan: dict[str, str | int] | None = None
        self._clock = clock
        self._begun = clock()
        self._spent = self._last = 0.0

    def __repr__(self) -> str:
        names = (name if isinstance(name, str) else name.__name__ for name in self._what)
        rows = f"{len(self.rows)} rows so far"
        return f"Recorder({', '.join(names)}; every {self._every} steps, {rows})"

    def record(self, step: int) -> dict[str, Any] | None:
        """Measure, if it is time and the budget allows it; the row, or None.

        A row holds the numbers asked for, ``step``, ``seconds`` (what it took) and ``skipped``
        (how many were left out since the one before). The first measurement raises what is wrong
        with the model, the data or a measure. A later one that fails, where the net diverged,
        does not end the training: its row holds ``error``, in words.
        """
        if step % self._every:
            return None
        start = self._clock()
        outside = start - self._begun - self._spent
        too_dear = self._budget is not None and (self._spent + self._last > self._budget * outside)
        if self.rows and too_dear:
            self.skipped += 1
            return None
        row: dict[str, Any]
        try:
            with undisturbed(self._model):
                row = dict(self._measured())
        except (ValueError, RuntimeError, FloatingPointError) as error:
            if not self.rows:
                raise
            row = {"error": str(error)}
        self._last = self._clock() - start
        self._spent += self._last
        row |= {"step": step, "seconds": self._last, "skipped": self.skipped}
        self.skipped = 0
        self.rows.append(row)
        if self._log is not None:
            self._log(row, step)
        return row

    __call__ = record

    @property
    def trajectory(self) -> Trajectory:
        """What was recorded so far, to tabulate, draw or save."""
        steps = tuple(int(row["step"]) for row in self.rows)
        return Trajectory(steps=steps, found=tuple(dict(row) for row in self.rows))

    def _measured(self) -> Row:
        if self._model is None:
            problem = self._source()
            if not isinstance(problem, Problem):
                raise TypeError(
                    f"expected a function that returns a Problem, got {type(problem).__name__}"
                )
        else:
            # What the first problem verified holds for the others.
            options = {"verify": self._plan is None, **self._options}
            problem = Problem(self._model, self._data, **options)
        if self._plan is not None:
            # Choices by measurement are made once, so that later rows are rounded alike.
            problem.plan = self._plan
        moment = Moment(problem, **self._settings)  # type: ignore[arg-type]
        row = self._row(moment)
        self._plan = problem.plan
        return row

    def _row(self, moment: Moment) -> Row:
        row: Row = {}
        for measure in self._what:
            known = MEASURES[measure] if isinstance(measure, str) else None
            found: Any = measure(moment.problem) if known is None else known(moment)
            if not isinstance(found, Mapping):
                raise TypeError(
                    f"expected {getattr(measure, '__name__', measure)} to return a dict of numbers "
                    f"by name, got {shown(found)}"
                )
            row |= found
        return row


@contextmanager
def undisturbed(model: nn.Module | None) -> Iterator[None]:
    """Derivatives on and autocast off inside; generators, flags and gradients as before outside."""
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    flags = [] if model is None else [(m, m.training) for m in model.modules()]
    gradients = [] if model is None else [(p, p.grad) for p in model.parameters()]
    state, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with (
            ExitStack() as autocast,
            torch.random.fork_rng(devices=cuda),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    autocast.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpys)  # noqa: NPY002
        for module, training in flags:
            module.training = training
        for parameter, gradient in gradients:
            parameter.grad = gradient


def append_to(path: Path) -> Log:
    """A ``log(dict, step)`` that adds a line of JSON to a file; NaN and infinities become null.

    A line that an earlier run was killed over is cut off first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)

    def log(row: dict[str, Any], step: int) -> None:
        plain = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        with open(path, "a") as file:
            file.write(json.dumps(plain, allow_nan=False) + "\n")

    return log


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file that a :class:`Recorder` wrote; a line cut off at the end is left out.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If a whole line is no JSON.
    """
    path = as_path(path, "the rows")
    if not path.is_file():
        raise FileNotFoundError(f"expected a recorder's rows at {path}, found no file")
    whole = path.read_text().rpartition("\n")[0]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise ValueError(f"expected a JSON object a line in {path}: {error}") from error
