"""Every net and every data set by name, with what each needs: the one list there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepspec.seeds import Seed, whole_seed
from deepspec.zoo import densenets, drawn_digits, images, networks, resnets
from deepspec.zoo.datasets import Split, digits
from deepspec.zoo.libraries import LIBRARIES, from_library, unknown

SAMPLE_SIZES = (
    *(10, 13, 19, 26, 37, 51, 71, 98, 136, 189),
    *(263, 365, 506, 702, 974, 1351, 1874, 2599, 3605, 5000),
)
"""Samples of each class in the papers' grid: 20, evenly on a log scale (Papyan 2020, D.1)."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A net by name.

    Attributes
    ----------
    build
        ``build(shape, classes, seed, **options)`` with the shape of one sample.
    summary
        One line for a list.
    side
        The fewest pixels a side it takes; 0 where it takes samples of any shape.
    """

    build: Callable[..., nn.Module]
    summary: str
    side: int = 0

    @property
    def images(self) -> bool:
        """Whether samples must be images (channels, height, width)."""
        return self.side > 0


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set by name.

    Attributes
    ----------
    load
        ``load(per_class, seed, **options)``.
    summary
        One line for a list.
    epochs
        Of the papers' training, where they used it (Papyan 2020, D.1).
    on_disk
        Whether files are needed, and so ``root=``.
    """

    load: Callable[..., Split]
    summary: str
    epochs: int
    on_disk: bool = True


def _mlp(widths: tuple[int, ...]) -> Callable[..., nn.Module]:
    def build(shape: tuple[int, ...], classes: int, seed: Seed, **options: Any) -> nn.Module:
        chosen = options.pop("widths", widths)
        return networks.mlp(math.prod(shape), chosen, classes, seed, **options)

    return build


def _of_images(builder: Callable[..., nn.Module], sized: bool = True) -> Callable[..., nn.Module]:
    def build(shape: tuple[int, ...], classes: int, seed: Seed, **options: Any) -> nn.Module:
        more = {"side": min(shape[1:])} if sized else {}
        return builder(channels=shape[0], classes=classes, seed=seed, **more, **options)

    return build


NETWORKS: dict[str, Network] = {
    "mlp": Network(build=_mlp((64, 64)), summary="two hidden layers of 64; widths= for others"),
    "mlp8x2048": Network(build=_mlp((2048,) * 8), summary="the papers' eight layers of 2048"),
    "convnet": Network(build=_of_images(networks.convnet), summary="two convolutions", side=4),
    "small-vgg": Network(build=_of_images(networks.small_vgg), summary="four convolutions", side=8),
    "vgg11": Network(build=_of_images(networks.vgg11), summary="28 million parameters", side=32),
    "vgg16": Network(build=_of_images(networks.vgg16), summary="34 million parameters", side=32),
    "resnet18": Network(
        build=_of_images(resnets.resnet18, sized=False), summary="3 × 3 stem, 11 million", side=8
    ),
    "resnet50": Network(
        build=_of_images(resnets.resnet50, sized=False), summary="3 × 3 stem, 24 million", side=8
    ),
    "densenet40": Network(
        build=_of_images(densenets.densenet40, sized=False), summary="k = 12, 1 million", side=8
    ),
}

DATASETS: dict[str, Data] = {
    "digits": Data(load=digits, summary="8 × 8 digits of scikit-learn", epochs=60, on_disk=False),
    "mnist1d": Data(
        load=drawn_digits.mnist1d, summary="40 numbers, drawn here", epochs=200, on_disk=False
    ),
    "mnist": Data(load=images.mnist, summary="1 × 32 × 32", epochs=200),
    "fashion-mnist": Data(load=images.fashion_mnist, summary="1 × 32 × 32", epochs=200),
    "cifar10": Data(load=images.cifar10, summary="3 × 32 × 32", epochs=350),
    "cifar100": Data(load=images.cifar100, summary="3 × 32 × 32, 100 classes", epochs=350),
    "folder": Data(load=images.image_folder, summary="pictures, a folder a class", epochs=350),
}


def known_network(name: str) -> bool:
    """Whether :func:`network` builds it: built in, or of a library."""
    library, colon, _ = name.partition(":")
    return name in NETWORKS or (library in LIBRARIES and bool(colon))


def network(
    name: str, shape: tuple[int, ...], classes: int, seed: Seed = 0, **options: Any
) -> nn.Module:
    """A net by name, for samples of a shape.

    Parameters
    ----------
    name
        One of :data:`NETWORKS`, or ``timm:NAME``, ``torchvision:NAME``, ``transformers:NAME``.
    shape
        Of one sample.
    options
        For its builder, such as ``normalise=False`` or ``widths=(512, 512)``.

    Raises
    ------
    ValueError
        If there is no such net (the nearest is named), or it cannot take such samples.

    >>> sum(p.numel() for p in network("mlp", (4,), 3, widths=(8,)).parameters())
    83
    """
    if known_network(name) and name not in NETWORKS:
        if len(shape) != 3 and not name.startswith("transformers:"):
            raise ValueError(f"expected images (channels, height, width) for {name}, got {shape}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(whole_seed(seed))
            return from_library(name, shape[0], classes, **options)
    if name not in NETWORKS:
        raise unknown("net", name, [*NETWORKS, *(f"{library}:NAME" for library in LIBRARIES)])
    chosen = NETWORKS[name]
    if chosen.images and (len(shape) != 3 or min(shape[1:]) < chosen.side):
        raise ValueError(
            f"expected images (channels, height, width) of at least {chosen.side} pixels a side "
            f"for {name}, got samples of shape {shape}; use an mlp, or data that are larger images"
        )
    return chosen.build(tuple(shape), classes, seed, **options)


def dataset(
    name: str,
    per_class: int | None = None,
    seed: Seed = 0,
    *,
    for_network: str | None = None,
    root: str | Path | None = None,
    download: bool = False,
    label_noise: float = 0.0,
    **options: Any,
) -> Split:
    """A data set by name: ``per_class`` training samples of each class, drawn by seed.

    Parameters
    ----------
    name
        One of :data:`DATASETS`.
    per_class
        Default all there are, or 100 where data are drawn or no files are needed.
    for_network
        A net that they are for: where it needs images, the digits become images, padded to the
        size it needs.
    root, download
        Where the files are; whether missing ones may be fetched.
    label_noise
        The share of training labels that are replaced by another class's.
    options
        For its loader, such as ``test_per_class=100``.

    Raises
    ------
    ValueError
        If there is no such data set (the nearest is named), files are needed and no root is
        given, or a class has fewer samples than asked for.
    FileNotFoundError
        If files are missing; it says what to put where.

    >>> dataset("digits", 10, for_network="vgg11").shape
    (1, 32, 32)
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    chosen = DATASETS[name]
    if chosen.on_disk:
        if root is None:
            raise ValueError(
                f"expected root, the folder with the files of {name}, got none; pass root= "
                "(in the shell: --root)"
            )
        options["root"] = root
        if name != "folder":
            options["download"] = download
    elif per_class is None:
        per_class = 100
    side = 0
    if for_network is not None and known_network(for_network):
        side = NETWORKS[for_network].side if for_network in NETWORKS else 32
    if name == "digits" and side:
        options = {"image": True, "side": max(8, side), **options}
    split = chosen.load(per_class, seed, **options)
    return split.with_label_noise(label_noise, seed) if label_noise else split


def learning_rates(count: int = 100) -> list[float]:
    """Those of the papers' grid, evenly spaced on a log scale in [1e-4, 0.25] (Papyan 2020, D.1).

    >>> rates = learning_rates(25)
    >>> len(rates), rates[0], round(rates[-1], 6)
    (25, 0.25, 0.0001)
    """
    return [0.25 * (1e-4 / 0.25) ** (i / (count - 1)) for i in range(count)]
