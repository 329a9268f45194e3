"""How a result is looked at: in words, as a table, drawn; and, being Saved, on disk."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deepspec.storage.files import shortened
from deepspec.storage.results import Saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, LINES, ROWS = 100, 10, 12
# Where results are drawn. By name, and only when asked for: nothing below ``report`` imports it.
DRAWING = "deepspec.report.plots.results"
Table = Mapping[str, Sequence[Any] | Tensor]


class Result(Saved):
    """What estimators return: a frozen dataclass that says in a few words what is in it.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, eq=False, repr=False, kw_only=True)
    ... class Found(Result):
    ...     values: Tensor
    ...     matvecs: int
    >>> import torch
    >>> Found(values=torch.linspace(0, 1, 1001), matvecs=1200)
    Found(values: 1,001 numbers in [0, 1], matvecs: 1,200)
    """

    def _words(self) -> list[str]:
        """What is in it, one phrase each; by default every field."""
        assert dataclasses.is_dataclass(self)
        return [f"{f.name}: {in_words(getattr(self, f.name))}" for f in dataclasses.fields(self)]

    def __repr__(self) -> str:
        name, words = type(self).__name__, self._words()
        line = f"{name}({', '.join(words)})"
        if len(line) <= WIDTH:
            return line
        if len(words) > LINES - 2:
            words = [*words[: LINES - 3], f"… and {len(words) - LINES + 3} more"]
        return "\n".join([f"{name}(", *(f"  {_cut(word)}" for word in words), ")"])

    def _repr_html_(self) -> str:
        """What a notebook shows: the words, and the head of the table where there is one."""
        shown = f"<pre>{escape(repr(self))}</pre>"
        return shown + html_table(self._table()) if isinstance(self, Tabular) else shown


class Tabular:
    """Gives a result :meth:`to_frame`."""

    @abstractmethod
    def _table(self) -> Table:
        """Columns by name, all of one length."""

    def to_frame(self) -> Any:
        """The numbers as a pandas data frame; pandas is imported only here.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        if importlib.util.find_spec("pandas") is None:
            raise ModuleNotFoundError(
                "expected pandas for a data frame, but it is not installed; "
                "pip install 'deepspec-ccm[frames]', or pandas itself",
                name="pandas",
            )
        frames = importlib.import_module("pandas")
        return frames.DataFrame({name: _plain(column) for name, column in self._table().items()})


class Drawable:
    """Gives a result :meth:`plot`."""

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it with Matplotlib, which is imported only here, and return the axes.

        Parameters
        ----------
        ax
            Axes to draw on; by default those of a new figure of ``matplotlib.pyplot``.
        """
        axes: Axes = importlib.import_module(DRAWING).draw(self, ax)
        return axes


def in_words(value: Any) -> str:
    """A value in a few words, however large it is.

    >>> import torch
    >>> in_words(torch.eye(3)), in_words(2.0), in_words({"G": 1, "E": 2}), in_words([1, 2])
    ('3 × 3 numbers in [0, 1]', '2', 'G, E', '(1, 2)')
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        return f"{float(value):.4g}"
    if isinstance(value, str):
        return shortened(value) if value else "–"
    if isinstance(value, Mapping):
        return _listed([str(name) for name in value])
    if isinstance(value, (tuple, list)):
        if len(value) <= 4 and all(isinstance(item, Real | str) for item in value):
            return f"({', '.join(in_words(item) for item in value)})"
        kinds = {type(item).__name__ for item in value}
        return f"{len(value):,} {kinds.pop() if len(kinds) == 1 else 'items'}"
    return type(value).__name__


def _tensor(value: Tensor) -> str:
    if value.numel() == 0:
        return "no numbers"
    if value.ndim == 0:
        return in_words(value.item())
    size = " × ".join(f"{n:,}" for n in value.shape)
    numbers = value.detach().double()
    known = numbers[numbers.isfinite()]
    if not len(known):
        return f"{size} numbers, none of them finite"
    return f"{size} numbers in [{float(known.min()):.3g}, {float(known.max()):.3g}]"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f", … ({len(names)})" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def _plain(column: Sequence[Any] | Tensor) -> list[Any]:
    return column.detach().cpu().tolist() if isinstance(column, Tensor) else list(column)


def html_table(table: Table, most: int = ROWS) -> str:
    """The first rows as an HTML table.

    >>> html_table({"a<b": [1.5, 2.5]}, most=1)
    '<table><tr><th>a&lt;b</th></tr><tr><td>1.5</td></tr><tr><td>… 1 more</td></tr></table>'
    """
    columns = {name: _plain(column[:most]) for name, column in table.items()}
    length = max((len(column) for column in table.values()), default=0)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = [
        "".join(f"<td>{escape(in_words(value))}</td>" for value in row)
        for row in zip(*columns.values(), strict=True)
    ]
    if length > most:
        rows.append(f"<td>… {length - most:,} more</td>")
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in [head, *rows])}</table>"
