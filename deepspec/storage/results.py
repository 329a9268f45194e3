"""Results as a JSON tree beside named arrays, and back: what safetensors and JSON can hold."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from deepspec.storage.checkpoint import MANIFEST

ARRAY = "array:"


def pack(value: Any, place: str, arrays: dict[str, Tensor]) -> Any:
    """JSON for a tree of frozen dataclasses, dicts, tuples, numbers and tensors.

    Tensors go into ``arrays`` under their place in the tree; numbers JSON lacks become strings.

    >>> import torch
    >>> arrays = {}
    >>> pack({"x": torch.ones(1), "y": math.nan}, "root", arrays)
    {'x': 'array:root.x', 'y': 'nan'}
    >>> arrays
    {'root.x': tensor([1.])}

    Raises
    ------
    TypeError
        If something is of another kind.
    """
    if isinstance(value, Tensor):
        arrays[place] = value.detach().cpu()
        return ARRAY + place
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: pack(getattr(value, field.name), f"{place}.{field.name}", arrays)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): pack(item, f"{place}.{key}", arrays) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [pack(item, f"{place}.{i}", arrays) for i, item in enumerate(value)]
    raise TypeError(
        f"expected dataclasses, dicts, lists, numbers, text or tensors at {place}, "
        f"got {type(value).__name__}"
    )


def unpack(kind: Any, value: Any, arrays: dict[str, Tensor]) -> Any:
    """The tree of type ``kind`` that :func:`pack` took apart.

    >>> unpack(dict[str, float], {"y": "nan"}, {})
    {'y': nan}
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        chosen = next(option for option in get_args(kind) if option is not type(None))
        return unpack(chosen, value, arrays)
    if isinstance(value, str) and value.startswith(ARRAY):
        return arrays[value.removeprefix(ARRAY)]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{name: unpack(hints[name], item, arrays) for name, item in value.items()})
    if origin is dict:
        inner = get_args(kind)[1]
        return {key: unpack(inner, item, arrays) for key, item in value.items()}
    if origin is tuple:
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            return tuple(unpack(kinds[0], item, arrays) for item in value)
        return tuple(unpack(k, item, arrays) for k, item in zip(kinds, value, strict=True))
    if origin is list:
        return [unpack(get_args(kind)[0], item, arrays) for item in value]
    return float(value) if kind is float else value


@contextmanager
def new_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to write into, which appears under its name only once all in it is written.

    To be entered before the work, so that a place that cannot be written costs none.

    Raises
    ------
    FileExistsError
        If the name is taken and ``overwrite`` is false. With it, the old folder is replaced
        once the new one is complete.
    OSError
        If nothing can be written there.
    """
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"expected a new folder, but {target} exists; choose another name, or replace it "
            "with overwrite=True (in the shell: --overwrite)"
        )
    if target.exists() and not (target / MANIFEST).is_file():
        raise FileExistsError(
            f"expected {target} to be a folder that was written here, with a {MANIFEST}, but it is "
            "something else, and is left alone; choose another name"
        )
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OSError(
            f"expected to make a folder {target}, but {error.filename} cannot be written "
            f"({error.strerror}); choose another place"
        ) from error
    made.chmod(0o755)
    old = made.with_name(made.name + ".old")
    try:
        yield made
        if target.exists():
            os.replace(target, old)
        os.replace(made, target)
    finally:
        if old.exists() and not target.exists():  # stopped between the two
            os.replace(old, target)
        for left in (made, old):
            if left.exists():
                shutil.rmtree(left)
        for parent in missing:
            with suppress(OSError):  # not empty: it was needed
                parent.rmdir()
