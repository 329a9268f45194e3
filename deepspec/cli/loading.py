"""A user's own model, data and weights, named on a command line. Nothing here unpickles code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from deepspec.cli.errors import Failed, Terminated, one_line

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}


def from_factory(name: str) -> Any:
    """What ``module:function`` returns, called without arguments.

    Parameters
    ----------
    name
        ``package.module:function`` or ``path/to/file.py:function``.

    Raises
    ------
    ValueError
        If the name has no colon, the module, file or function is not there, or running it raises.

    >>> from_factory("collections:OrderedDict")
    OrderedDict()
    """
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function or place.startswith("."):
        raise ValueError(
            f"expected module:function or file.py:function, got {name!r}; "
            "for example mynet.py:build"
        )
    path = Path(place).resolve() if place.endswith(".py") else None
    if path is not None and not path.is_file():
        raise ValueError(f"expected a Python file at {place}, found none")
    # As for a script: what lies beside the file can be imported.
    with _on_path(path.parent if path else Path()):
        with _named("", place, path):
            module = _from_file(path) if path else _by_name(place)
        if module is None:
            raise ValueError(f"expected an importable module {place!r}, found none")
        factory = getattr(module, function, None)
        if not callable(factory):
            raise ValueError(f"expected a function {function!r} in {place}, found none")
        file = getattr(module, "__file__", None)
        with _named(f"{function} in ", place, Path(file or place).resolve(), factory):
            return factory()


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


@contextmanager
def _named(what: str, place: str, path: Path | None, factory: object = None) -> Iterator[None]:
    """Whatever the user's code raises, with the last line of their file that it went through."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, (Terminated, Failed)):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path]
        if isinstance(error, TypeError) and not lines and factory is not None:  # of the call itself
            lines = [getattr(getattr(factory, "__code__", None), "co_firstlineno", None)]
        if isinstance(error, SyntaxError):
            lines, place = [error.lineno], error.filename or place
        where = f"{place}:{lines[-1]}" if lines and lines[-1] else place
        words = f": {one_line(str(error))}" if str(error) else ""
        raise ValueError(f"{what}{where} raised {type(error).__name__}{words}") from error


def _from_file(path: Path) -> ModuleType:
    """Run once for each file, for model and data may come from one; two may share a name."""
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs: classes defined in it look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _by_name(name: str) -> ModuleType | None:
    """The module, or None where there is none; one that it imports in vain is another matter."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        return None


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict into a model, from safetensors or a file of ``torch.save``.

    A ``torch.save`` file is read with ``weights_only=True``, which builds tensors and plain
    containers and refuses everything else. A dict with a ``"state_dict"``, ``"model_state_dict"``
    or ``"model"`` entry is opened.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file would have to run code, holds no state dict, or does not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        there = "a folder" if path.is_dir() else "no file"
        raise FileNotFoundError(f"expected weights at {path}, found {there}")
    if path.stat().st_size == 0:
        raise ValueError(f"expected weights in {path}, but the file is empty")
    if path.suffix == ".safetensors":
        try:
            state: Any = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"expected a safetensors file at {path}: {error}") from error
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged byte may lead the reader to any of them
            # Of its words only what was refused: they go on to advise weights_only=False.
            refused = re.search(r"GLOBAL (\S+)", str(error))
            raise ValueError(
                f"refused to read {path}: it is damaged, or a pickle that can run code"
                f"{f' ({refused[1]})' if refused else ''}, and only tensors are loaded here; "
                "save model.state_dict() alone, or use safetensors"
            ) from None
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not _is_state_dict(state):
        found = (
            f"entries {', '.join(map(repr, state))}"
            if isinstance(state, dict)
            else type(state).__name__
        )
        raise ValueError(
            f"expected a state dict of tensors in {path}, by itself or under one of "
            f"{', '.join(WRAPPERS)}; got {found}"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        hint = ""
        for prefix, wrapper in PREFIXES.items():
            if state and all(name.startswith(prefix) for name in state):
                hint = f"; every name begins with {prefix!r}, as {wrapper} leaves them: save the "
                hint += f"state dict of the model's .{prefix.rstrip('.')} instead"
        raise ValueError(f"the weights in {path} do not fit the model: {error}{hint}") from error


def _is_state_dict(state: Any) -> bool:
    return isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    )
