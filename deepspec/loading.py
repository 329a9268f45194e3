"""A user's own model, data and weights, named on a command line. Nothing here unpickles code."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn


def from_factory(name: str) -> Any:
    """What ``module:function`` returns, called without arguments.

    Parameters
    ----------
    name
        ``package.module:function`` or ``path/to/file.py:function``.

    Raises
    ------
    ValueError
        If the name has no colon, or the module, file or function is not there.

    >>> from_factory("collections:OrderedDict")
    OrderedDict()
    """
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function:
        raise ValueError(
            f"expected module:function or file.py:function, got {name!r}; "
            "for example mynet.py:build"
        )
    module = _module(place)
    factory = getattr(module, function, None)
    if not callable(factory):
        raise ValueError(f"expected a function {function!r} in {place}, found none")
    return factory()


def _module(place: str) -> ModuleType:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise ValueError(f"expected a Python file at {place}, found none")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"expected a Python file at {place}, got something else")
        module = importlib.util.module_from_spec(spec)
        # Before it runs: classes defined in it look their module up.
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise ValueError(f"expected an importable module {place!r}: {error}") from error


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a state dict into a model, from safetensors or a file of ``torch.save``.

    A ``torch.save`` file is read with ``weights_only=True``, which builds tensors and plain
    containers and refuses everything else. A dict with a ``"state_dict"`` or ``"model"`` entry
    is opened.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file would have to run code, holds no state dict, or does not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected weights at {path}, found no file")
    if path.suffix == ".safetensors":
        try:
            state: Any = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"expected a safetensors file at {path}: {error}") from error
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(
                f"refused to read {path}: it is damaged, or a pickle that can run code, and "
                "only tensors are loaded here; save model.state_dict() alone, or use "
                f"safetensors ({str(error).splitlines()[0]})"
            ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"expected a state dict of tensors in {path}, got {type(state).__name__}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the model: {error}") from error
