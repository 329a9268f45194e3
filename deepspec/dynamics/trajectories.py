"""Numbers of a net as they change while it is trained, by step or epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import Tensor

from deepspec.storage.display import Drawable, Result, Table, Tabular


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Trajectory(Result, Tabular, Drawable, Mapping[int, Any]):
    """A quantity after each step that was looked at: ``trajectory[step]``, as of a dict.

    What was a dataclass is saved as its numbers, and read back as a dict of them.

    Attributes
    ----------
    steps
        The steps or epochs, ascending.
    found
        The quantity at each of them: a number, numbers by name, or anything else.

    >>> trajectory = Trajectory(steps=(0, 5), found=({"loss": 2.0}, {"loss": 0.5}))
    >>> trajectory[5]["loss"], len(trajectory)
    (0.5, 2)
    >>> trajectory
    Trajectory(2 steps from 0 to 5, loss: 2 to 0.5)
    """

    steps: tuple[int, ...]
    found: tuple[Any, ...]

    def __getitem__(self, step: int) -> Any:
        if step not in self.steps:
            raise KeyError(
                f"expected one of the steps {', '.join(map(str, self.steps))}; got {step}"
            )
        return self.found[self.steps.index(step)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def _words(self) -> list[str]:
        if not self.steps:
            return ["no steps"]
        words = [f"{len(self)} steps from {self.steps[0]:,} to {self.steps[-1]:,}"]
        for name, column in list(self._table().items())[1:]:
            words.append(f"{name}: {column[0]:.4g} to {column[-1]:.4g}")
        return words

    def _table(self) -> Table:
        rows = [_numbers(value) for value in self.found]
        names = dict.fromkeys(name for row in rows for name in row if name != "step")
        missing = float("nan")
        columns = {name: [row.get(name, missing) for row in rows] for name in names}
        return {"step": list(self.steps), **columns}


def _numbers(value: Any) -> dict[str, float]:
    """The numbers of a quantity by name; what has none gives none."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, Real):
        return {"value": float(value)}
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(k): float(v) for k, v in value.items() if isinstance(v, Real)}
    return {}
