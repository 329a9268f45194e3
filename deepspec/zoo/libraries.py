"""Nets of timm, torchvision and transformers by name, with a head for C classes."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from torch import nn


def unknown(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not there: the nearest, and what there is.

    >>> print(unknown("net", "resnet81", ["mlp", "resnet18"]))
    expected a net that is known, got 'resnet81'; did you mean resnet18? There are mlp, resnet18
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    shown = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    return ValueError(f"expected a {kind} that is known, got {name!r}; {guess}There are {shown}")


def from_library(name: str, channels: int, classes: int, *, pretrained: bool = False) -> nn.Module:
    """The net that ``timm:NAME``, ``torchvision:NAME`` or ``transformers:NAME`` says.

    Parameters
    ----------
    name
        For transformers the folder or hub name of a model with a ``config.json``.
    channels
        Of the images; torchvision's nets have 3.
    classes
        C; the library's head is replaced.
    pretrained
        With the library's weights (which it may download), and a fresh head.

    Raises
    ------
    ValueError
        If the library is not there, or has no such net.
    """
    library, _, inner = name.partition(":")
    if library not in LIBRARIES or not inner:
        raise unknown("library", library, LIBRARIES)
    try:
        module = importlib.import_module(library)
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ValueError(
            f"expected {library} for {name}, but it cannot be imported ({error}); "
            f"pip install {library}"
        ) from error
    return LIBRARIES[library](module, inner, channels, classes, pretrained)


def _timm(timm: Any, name: str, channels: int, classes: int, pretrained: bool) -> nn.Module:
    if not timm.is_model(name):
        raise unknown("net of timm", name, timm.list_models())
    made: nn.Module = timm.create_model(
        name, pretrained=pretrained, num_classes=classes, in_chans=channels
    )
    return made


def _torchvision(
    torchvision: ModuleType, name: str, channels: int, classes: int, pretrained: bool
) -> nn.Module:
    models = importlib.import_module(f"{torchvision.__name__}.models")
    if name not in models.list_models(module=models):
        raise unknown("net of torchvision", name, models.list_models(module=models))
    if channels != 3:
        raise ValueError(
            f"expected images of 3 channels for torchvision:{name}, got {channels}; use timm:, "
            "or a built-in net"
        )
    if not pretrained:
        made: nn.Module = models.get_model(name, weights=None, num_classes=classes)
        return made
    return with_head(models.get_model(name, weights="DEFAULT"), classes)


def _transformers(
    transformers: Any, name: str, channels: int, classes: int, pretrained: bool
) -> nn.Module:
    try:
        config = transformers.AutoConfig.from_pretrained(name, num_labels=classes)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"expected a model with a config.json at transformers:{name}, but {error}"
        ) from error
    of_images = type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if of_images and hasattr(config, "num_channels"):
        config.num_channels = channels
    kind = "ImageClassification" if of_images else "SequenceClassification"
    auto = getattr(transformers, f"AutoModelFor{kind}")
    made: nn.Module = (
        auto.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
        if pretrained
        else auto.from_config(config)
    )
    return made


LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}


def with_head(model: nn.Module, classes: int) -> nn.Module:
    """The model with its last linear map replaced by a fresh one to C classes, in place.

    Raises
    ------
    ValueError
        If it has no linear map.

    >>> with_head(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1000)), 10)[1]
    Linear(in_features=5, out_features=10, bias=True)
    """
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linear or not linear[-1][0]:
        raise ValueError(f"expected a net with a linear head, got {type(model).__name__}")
    name, old = linear[-1]
    parent, _, child = name.rpartition(".")
    head = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    setattr(model.get_submodule(parent), child, head)
    return model
