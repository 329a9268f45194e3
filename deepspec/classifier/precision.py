"""The precision that a net computes in: the lowest inside, where that is, and no autocast."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.trees import tensors


def refuse_autocast(device: torch.device) -> None:
    """Under autocast, matrices would be multiplied in half precision behind everyone's back.

    Raises
    ------
    RuntimeError
        If it is on.
    """
    if torch.is_autocast_enabled(device.type):
        raise RuntimeError(
            f"expected full precision, but torch.autocast is on for {device.type}: products would "
            "be of half precision; leave its block, or set enabled=False in it"
        )


def lowest_precision(function: LogitFunction) -> torch.dtype:
    """The precision that products with derivatives have: that of θ, or of a cast inside.

    Normalisations and softmaxes of large models go through float32 whatever they are given, so
    that what a float64 model computes is right to seven digits only.

    Warns
    -----
    RuntimeWarning
        If something inside is computed in less than θ is in; by the names of the modules.
    """
    given = next(iter(function.parameters.values())).dtype
    casts = _Casts(function.model, given)
    few = function.head(min(2, function.samples))
    with torch.enable_grad(), casts:
        few(few.leaves())
    if not casts.found:
        return given
    lowest = max(casts.found.values(), key=lambda dtype: torch.finfo(dtype).eps)
    names = list(casts.found)
    low, high = (str(dtype).removeprefix("torch.") for dtype in (lowest, given))
    warnings.warn(
        f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} "
        f"compute{'s' * (len(names) == 1)} in {low} inside a model in {high}: products have the "
        f"rounding of {low}, and tolerances are taken from it; for {high} throughout, take the "
        "cast out of the model",
        RuntimeWarning,
        stacklevel=4,
    )
    return lowest


class _Casts(TorchFunctionMode):
    """Notes the modules in which a value that depends on θ loses precision."""

    def __init__(self, model: nn.Module, given: torch.dtype) -> None:
        super().__init__()
        self._given, self._eps = given, torch.finfo(given).eps
        self._names = {module: name for name, module in model.named_modules()}
        self._inside = [model]
        self._handles: list[Any] = []
        self.found: dict[str, torch.dtype] = {}

    def __enter__(self) -> _Casts:
        for module in self._names:
            self._handles += [
                module.register_forward_pre_hook(lambda m, _: self._inside.append(m)),
                module.register_forward_hook(self._leave, always_call=True),
            ]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def _leave(self, *_: Any) -> None:
        self._inside.pop()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            lower = torch.finfo(result.dtype).eps > self._eps
            if lower and any(map(self._moves, tensors((args, kwargs or {})))):
                module = self._inside[-1]
                kind, name = type(module).__name__, self._names.get(module)
                self.found[f"{name} ({kind})" if name else kind] = result.dtype
        return result

    def _moves(self, tensor: Tensor) -> bool:
        """Whether it may depend on θ; inside a user's autograd.Function nothing says so."""
        return tensor.dtype == self._given and (tensor.requires_grad or not torch.is_grad_enabled())
