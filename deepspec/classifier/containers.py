"""What containers hold, read and put back past the methods of a user's subclass."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from types import CellType
from typing import Any

from torch import Tensor

# A subclass may make, count or check something at each access: a registry of activations builds
# the module it is asked for.


def builtin_kind(holder: Any) -> Any:
    """The type of Python's own that a container is made from."""
    return next(kind for kind in (OrderedDict, dict, list, deque, set) if isinstance(holder, kind))


def entries_of(holder: Any) -> Iterable[tuple[Any, Any]]:
    """Keys, or places, and what is there.

    >>> list(entries_of(["a", "b"])), list(entries_of({"x": 1}))
    ([(0, 'a'), (1, 'b')], [('x', 1)])
    """
    if isinstance(holder, dict):
        return dict.items(holder)
    return enumerate(builtin_kind(holder).__iter__(holder))


# An interrupt may come at any line: nothing is emptied before it is filled again.


def restore_dict(holder: dict, before: dict) -> None:
    """The entries of before, and no others."""
    kind, now = builtin_kind(holder), dict(entries_of(holder))
    for key in now.keys() - before.keys():
        kind.__delitem__(holder, key)
    for key, value in before.items():
        if key not in now or now[key] is not value:
            kind.__setitem__(holder, key, value)


def restore_list(holder: Any, before: list) -> None:
    """The entries of a list or deque, in order."""
    if isinstance(holder, list):
        list.__setitem__(holder, slice(None), before)
    else:
        deque.extend(holder, before)
        while deque.__len__(holder) > len(before):
            deque.popleft(holder)


def restore_set(holder: set, before: set) -> None:
    """The members of before, and no others."""
    holder.update(before)
    holder.intersection_update(before)


def restore_class(kind: type, before: dict[str, Any]) -> None:
    """A class's own attributes."""
    for name, value in list(vars(kind).items()):
        if name not in before:
            delattr(kind, name)
        elif value is not before[name]:
            setattr(kind, name, before[name])


def restore_entry(space: dict, name: str, value: Any) -> None:
    """One global variable."""
    space[name] = value


def restore_cell(cell: CellType, value: Any) -> None:
    """A variable of a closure, if it held or holds tensors; counters count on."""
    if isinstance(cell.cell_contents, Tensor | tuple) or isinstance(value, Tensor | tuple):
        cell.cell_contents = value
