"""Nets and data by name, built in or the user's own, made ready to be attributed."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepspec import networks
from deepspec.data import digits
from deepspec.loading import from_factory, load_weights
from deepspec.problem import Problem
from deepspec.training import Training, train

BUILT_IN: dict[str, Callable[..., nn.Module]] = {"mlp": networks.mlp, "convnet": networks.convnet}


@dataclass(frozen=True)
class Net:
    """A net on its training data; where there are any, on held-out data and before training."""

    problem: Problem
    test: Problem | None
    untrained: Problem | None
    training: Training | None


def built_in(
    name: str, per_class: int, epochs: int, learning_rate: float, seed: int, **options: Any
) -> Net:
    """A built-in net, trained on the digits; says so where it does not reach zero error."""
    split = digits(per_class, seed, image=name == "convnet")
    model = BUILT_IN[name](seed=seed)
    untrained = copy.deepcopy(model).eval()
    training = train(model, *split.train, epochs=epochs, learning_rate=learning_rate, seed=seed)
    if training.error_rate > 0:
        print(
            f"note: {training.error_rate:.1%} of the training samples are still wrong after "
            f"{epochs} epochs; the papers train to zero error (raise --epochs)",
            file=sys.stderr,
        )
    problems = [
        Problem(net, part, **options)
        for net, part in ((model, split.train), (model, split.test), (untrained, split.train))
    ]
    return Net(problems[0], problems[1], problems[2], training)


def own(
    model_name: str,
    weights: Path | None,
    data: str,
    test_data: str | None,
    per_class: int,
    seed: int,
    options: dict[str, Any],
) -> Net:
    """The user's model, weights and data.

    Raises
    ------
    ValueError, TypeError, OSError
        If one of them is not there or not what it should be; see :mod:`deepspec.loading`.
    """
    # The user's functions draw from the global generator; --seed is to govern them too.
    torch.manual_seed(seed)
    model = BUILT_IN[model_name](seed=seed) if model_name in BUILT_IN else from_factory(model_name)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"expected {model_name} to return a torch.nn.Module, got {type(model).__name__}"
        )
    untrained = None
    if weights is None:
        print(
            f"note: attributing the net as {model_name} returns it; pass --weights to load a "
            "trained state",
            file=sys.stderr,
        )
    else:
        untrained = copy.deepcopy(model)
        load_weights(model, weights)
    train_data: Any
    held_out: Any
    if data == "digits":
        split = digits(per_class, seed, image=model_name == "convnet")
        train_data, held_out = split.train, split.test
    else:
        train_data = from_factory(data)
        held_out = None if test_data is None else from_factory(test_data)
    return Net(
        Problem(model, train_data, **options),
        None if held_out is None else Problem(model, held_out, **options),
        None if untrained is None else Problem(untrained, train_data, **options),
        None,
    )
