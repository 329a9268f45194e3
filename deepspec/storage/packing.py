"""Frozen dataclasses as a JSON tree beside named arrays, and back, with every type checked."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from jaxtyping import AbstractArray
from torch import Tensor

from deepspec.storage.files import shortened

ARRAY, FLOAT = "$array", "$float"  # what JSON has no word for: {"$array": place}, {"$float": "nan"}


def pack(value: Any, place: str, arrays: dict[str, Tensor]) -> Any:
    """JSON for a tree of frozen dataclasses, dicts, tuples, numbers and tensors.

    Tensors go into ``arrays`` under their place in the tree.

    >>> import torch
    >>> arrays = {}
    >>> pack({"x": torch.ones(1), "y": math.nan}, "root", arrays)
    {'x': {'$array': 'root.x'}, 'y': {'$float': 'nan'}}
    >>> arrays
    {'root.x': tensor([1.])}

    Raises
    ------
    TypeError
        If something is of another kind, or a name begins with "$".
    """
    if isinstance(value, Tensor):
        arrays[place] = value.detach().cpu()
        return {ARRAY: place}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {FLOAT: repr(float(value))}
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: pack(getattr(value, field.name), f"{place}.{field.name}", arrays)
            for field in dataclasses.fields(value)
            if field.init
        }
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str | int) or str(key).startswith("$"):
                raise TypeError(f"expected names without a leading '$' at {place}, got {key!r}")
        return {str(key): pack(item, f"{place}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [pack(item, f"{place}.{i}", arrays) for i, item in enumerate(value)]
    raise TypeError(
        f"expected dataclasses, dicts, lists, numbers, text or tensors at {place}, "
        f"got {type(value).__name__}"
    )


def unpack(kind: Any, value: Any, arrays: dict[str, Tensor], place: str = "the result") -> Any:
    """The tree of type ``kind`` that :func:`pack` took apart; nothing else gets through.

    Arrays are held against their jaxtyping annotation: dtype and dimensions.

    >>> unpack(dict[str, float], {"y": {"$float": "nan"}}, {})
    {'y': nan}

    Raises
    ------
    ValueError
        If a field is missing, unknown or of another type, or an array of another shape or dtype.
    """
    origin = get_origin(kind)
    if kind is Any:
        return _untyped(value, arrays, place)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(kind), value, arrays, place)
    if origin is Literal:
        return (
            value if value in get_args(kind) else _refuse(f"one of {get_args(kind)}", value, place)
        )
    if kind is Tensor or (isinstance(kind, type) and issubclass(kind, AbstractArray)):
        return _array(kind, value, arrays, place)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _fields(kind, value, arrays, place)
    if kind is dict or origin is dict:
        return _dictionary(get_args(kind) or (str, Any), value, arrays, place)
    if kind in (tuple, list) or origin in (tuple, list):
        return _sequence(kind, value, arrays, place)
    if kind is float:
        return _number(value, place)
    if kind in (int, bool, str, type(None)):
        return value if type(value) is kind else _refuse(kind.__name__, value, place)
    raise TypeError(f"no results of type {kind} can be read ({place})")


def _refuse(expected: str, value: object, place: str) -> NoReturn:
    raise ValueError(f"expected {expected} at {place}, got {shortened(value)}")


def _number(value: Any, place: str) -> float:
    spelled = value[FLOAT] if isinstance(value, dict) and value.keys() == {FLOAT} else value
    if spelled in ("nan", "inf", "-inf"):
        return float(spelled)
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:
            pass
    _refuse("a number", value, place)


def _array(kind: Any, value: Any, arrays: dict[str, Tensor], place: str) -> Tensor:
    if not (isinstance(value, dict) and value.keys() == {ARRAY}):
        _refuse("an array", value, place)
    name = value[ARRAY]
    if not isinstance(name, str) or name not in arrays:
        _refuse("an array of this file", name, place)
    found = arrays[name]
    if not isinstance(found, kind):
        shape = f"{found.dtype} of shape {tuple(found.shape)}"
        _refuse(f"an array {kind.__name__}", shape, place)
    return found


def _untyped(value: Any, arrays: dict[str, Tensor], place: str) -> Any:
    """What the annotation says nothing of."""
    if isinstance(value, dict) and value.keys() == {ARRAY}:
        return _array(Tensor, value, arrays, place)
    if isinstance(value, dict) and value.keys() == {FLOAT}:
        return _number(value, place)
    if isinstance(value, dict):
        return {key: _untyped(item, arrays, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_untyped(item, arrays, f"{place}.{i}") for i, item in enumerate(value)]
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, arrays: dict[str, Tensor], place: str) -> Any:
    """The first of the types that fits."""
    if value is None and type(None) in kinds:
        return None
    errors = []
    for kind in kinds:
        try:
            return unpack(kind, value, arrays, place)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _fields(kind: type, value: Any, arrays: dict[str, Tensor], place: str) -> Any:
    assert dataclasses.is_dataclass(kind)
    if not isinstance(value, dict):
        _refuse(f"the fields of {kind.__name__}", value, place)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    missing, unknown = [n for n in names if n not in value], [n for n in value if n not in names]
    if missing or unknown:
        lines = [
            f"{text} {', '.join(found)}"
            for text, found in (("without", missing), ("with unknown", unknown))
            if found
        ]
        _refuse(f"the fields of {kind.__name__}", f"some {' and '.join(lines)}", place)
    hints = get_type_hints(kind)
    found = {n: unpack(hints[n], value[n], arrays, f"{place}.{n}") for n in names}
    try:
        return kind(**found)
    except TypeError as error:  # of a check in __post_init__
        raise ValueError(f"{error} (at {place})") from error


def _dictionary(kinds: Any, value: Any, arrays: dict[str, Tensor], place: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        _refuse("entries by name", value, place)
    names, inner = kinds
    found = {}
    for name, item in value.items():
        key = name
        if names is int:
            key = int(name) if name.lstrip("-").isdecimal() else _refuse("a number", name, place)
        found[key] = unpack(inner, item, arrays, f"{place}.{name}")
    return found


def _sequence(kind: Any, value: Any, arrays: dict[str, Tensor], place: str) -> Any:
    if not isinstance(value, list):
        _refuse("a list", value, place)
    container, kinds = get_origin(kind) or kind, get_args(kind) or (Any, ...)
    if container is list or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        _refuse(f"{len(kinds)} entries", value, place)
    return container(
        unpack(inner, item, arrays, f"{place}.{i}")
        for i, (inner, item) in enumerate(zip(kinds, value, strict=True))
    )
