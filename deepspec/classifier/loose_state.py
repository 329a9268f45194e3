"""What a model keeps beside its parameters and buffers, as it was before each forward pass.

Tables made at the first call, caches by size, weights that hooks write: PyTorch does not know
these tensors, so a forward pass in another precision, without a graph or at other parameters
would leave its own in them, and the caller's model or the next pass would take them from there.
"""

from __future__ import annotations

import functools
import sys
from collections import UserDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from deepspec.classifier.containers import (
    builtin_kind,
    entries_of,
    restore_cell,
    restore_class,
    restore_dict,
    restore_entry,
    restore_list,
    restore_set,
)

# The framework's and the language's own objects are no place for a user's tensors; and what the
# hooks of this package write is what it asks for.
NOT_ENTERED = {*sys.stdlib_module_names, "torch", "numpy", "deepspec"}
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
HOOKS = frozenset(name for name in OF_EVERY_MODULE if name.endswith("_hooks"))
PLAIN = (bool, int, float, complex, str, bytes, type, type(None), ModuleType, torch.dtype)


@dataclass(frozen=True)
class Slot:
    """A place that holds a tensor no module has registered."""

    owner: str
    holder: Any
    key: Any
    tensor: Tensor

    @property
    def name(self) -> str:
        return self.owner or "the model"


@contextmanager
def as_it_was(model: nn.Module, replacements: Mapping[str, Tensor]) -> Iterator[None]:
    """Put everything a forward pass may write to back afterwards; inside, tensors are copies.

    Reached are the attributes of every module, the dictionaries, lists, tuples and plain objects
    in them, closures of hooks, class attributes, and global variables that the model's methods
    name. Parameters and buffers that stand there too are the ``replacements``; other tensors of
    the model's precision are copied into that of the replacements, so that what an earlier pass
    of the caller's left there fits. Not reached: objects with slots, other modules' globals, files;
    and generators of the model's own, whose noise would look like a constant.
    """
    walk = _Walk(model, _Converter(model, replacements))
    try:
        walk.over(model)
        yield
    finally:
        walk.undo()


def loose_tensors(model: nn.Module) -> list[Slot]:
    """Floating-point tensors that the model holds without having registered them."""
    walk = _Walk(model, lambda tensor: tensor)
    registered = {id(t) for t in (*model.parameters(), *model.buffers())}
    walk.over(model)
    return [
        slot
        for slot in walk.slots
        if id(slot.tensor) not in registered and slot.tensor.is_floating_point()
    ]


class _Converter:
    """Which tensor stands for which during a pass."""

    def __init__(self, model: nn.Module, replacements: Mapping[str, Tensor]) -> None:
        self._model, self._replacements = model, replacements
        self._copies: dict[int, Tensor] = {}

    @functools.cached_property
    def _registered(self) -> dict[int, str]:
        named = (*self._model.named_parameters(), *self._model.named_buffers())
        return {id(tensor): name for name, tensor in named}

    @functools.cached_property
    def _dtypes(self) -> set[torch.dtype]:
        return {p.dtype for p in self._model.parameters()}

    def __call__(self, tensor: Tensor) -> Tensor:
        name = self._registered.get(id(tensor))
        if name is not None and name in self._replacements:
            return self._replacements[name]
        if id(tensor) not in self._copies:
            like = next(iter(self._replacements.values()))
            fits = tensor.dtype in self._dtypes
            dtype = like.dtype if fits and like.is_floating_point() else tensor.dtype
            self._copies[id(tensor)] = tensor.detach().to(like.device, dtype, copy=True)
        return self._copies[id(tensor)]


class _Walk:
    """Visits each container once, notes what is in it, and puts converted tensors there."""

    def __init__(self, model: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
        self._convert = convert
        self._seen: dict[int, Any] = {}
        self._undo: list[Callable[[], None]] = []
        self._known = {id(module) for module in model.modules()}
        self.slots: list[Slot] = []
        self._owner = ""
        self._tensors_only = False

    def over(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            self._owner = name
            self._module(module)

    def undo(self) -> None:
        for step in reversed(self._undo):
            step()

    # ---- containers -------------------------------------------------------------------------

    def _module(self, module: nn.Module) -> None:
        if not self._first_time(module):
            return
        own = vars(module)
        self._undo.append(functools.partial(restore_dict, own, own.copy()))
        for name in ("_parameters", "_buffers", "_modules"):
            registered = own[name]
            self._undo.append(functools.partial(restore_dict, registered, registered.copy()))
            # A module in a plain list is one that PyTorch's own walk misses.
            if id(module) not in self._known:
                self._entries(registered)
        for name, value in tuple(own.items()):
            if name not in OF_EVERY_MODULE:
                self._slot(own, name, value)
            elif value and name in HOOKS:
                for hook in tuple(value.values()):
                    self._converted(hook)
        if type(module).__module__.partition(".")[0] not in NOT_ENTERED:
            self._class(type(module))

    def _class(self, kind: type) -> None:
        """Class attributes, and globals that its methods name; a memory of methods is by-passed."""
        if not self._first_time(kind):
            return
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] in NOT_ENTERED:
                continue
            before = dict(vars(base))
            self._undo.append(functools.partial(restore_class, base, before))
            for name, value in before.items():
                if isinstance(value, functools._lru_cache_wrapper):
                    setattr(base, name, value.__wrapped__)
                elif isinstance(value, FunctionType):
                    self._globals(value)
                elif isinstance(value, Tensor | dict | list | tuple | deque):
                    new = self._converted(value)
                    if new is not value:
                        setattr(base, name, new)

    def _globals(self, function: FunctionType) -> None:
        for name in function.__code__.co_names:
            space = function.__globals__
            value = space.get(name)
            if isinstance(value, FunctionType) and _entered(value.__module__):
                if self._first_time(value):
                    self._globals(value)
            elif name in space and isinstance(value, Tensor | dict | list | deque | None):
                with self._outside_the_model():
                    self._undo.append(functools.partial(restore_entry, space, name, value))
                    self._slot(space, name, value)

    def _entries(self, holder: Any) -> None:
        for key, value in list(entries_of(holder)):
            self._slot(holder, key, value)

    def _slot(self, holder: Any, key: Any, value: Any) -> None:
        if isinstance(value, PLAIN):
            return
        if isinstance(value, Tensor):
            self.slots.append(Slot(self._owner, holder, key, value))
        new = self._converted(value)
        if new is not value:
            builtin_kind(holder).__setitem__(holder, key, new)

    def _function(self, function: FunctionType) -> None:
        for cell in function.__closure__ or ():
            try:
                value = cell.cell_contents
            except ValueError:
                continue
            with self._outside_the_model():
                self._undo.append(functools.partial(restore_cell, cell, value))
                new = self._converted(value)
            if new is not value:
                cell.cell_contents = new

    @contextmanager
    def _outside_the_model(self) -> Iterator[None]:
        """Counters and logs of a user's own are let be there; tensors are not."""
        before, self._tensors_only = self._tensors_only, True
        yield
        self._tensors_only = before

    # ---- values -----------------------------------------------------------------------------

    def _converted(self, value: Any) -> Any:
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, Tensor):
            return self._convert(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, nn.Module):
            # Registered ones have their turn; their owner is then known.
            if id(value) not in self._known:
                self._module(value)
            return value
        if not self._first_time(value):
            return value
        if isinstance(value, dict):
            self._note(restore_dict, value, dict(entries_of(value)))
            self._entries(value)
        elif isinstance(value, list | deque):
            self._note(restore_list, value, [entry for _, entry in entries_of(value)])
            self._entries(value)
        elif isinstance(value, set):
            self._note(restore_set, value, set(value))
        elif isinstance(value, MethodType):
            self._converted(value.__self__)
            self._converted(value.__func__)
        elif isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self._converted(part)
        elif isinstance(value, FunctionType):
            if _entered(value.__module__):
                self._function(value)
        elif hasattr(value, "__dict__") and (
            _entered(type(value).__module__) or isinstance(value, SimpleNamespace | UserDict)
        ):
            own = vars(value)
            self._note(restore_dict, own, own.copy())
            self._entries(own)
        return value

    def _note(self, restore: Callable[[Any, Any], None], holder: Any, before: Any) -> None:
        only = self._tensors_only
        self._undo.append(
            lambda: restore(holder, before) if not only or _tensors_in(before, holder) else None
        )

    def _tuple(self, value: tuple) -> Any:
        new = [self._converted(part) for part in value]
        if all(a is b for a, b in zip(new, value, strict=True)):
            return value
        if type(value) is tuple:
            return tuple(new)
        return value._make(new) if hasattr(value, "_make") else value

    def _first_time(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        self._seen[id(value)] = value
        return True


def _entered(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] not in NOT_ENTERED


def _tensors_in(*holders: Any) -> bool:
    values = (v for h in holders for _, v in entries_of(h))
    return any(isinstance(value, Tensor | tuple | list | dict) for value in values)
