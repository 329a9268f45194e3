"""Nets and data by name, built in or the user's own, made ready to be attributed."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepspec.cli.loading import from_factory, load_weights
from deepspec.problem import Problem
from deepspec.zoo.registry import NETWORKS, dataset, known_network, network
from deepspec.zoo.training import Training, train

BUILT_IN = NETWORKS
DIGITS = "digits"
PER_CLASS, EPOCHS, LEARNING_RATE = 100, 60, 0.05


@dataclass(frozen=True)
class Net:
    """A net on its training data; where there are any, on held-out data.

    ``as_built`` is the net before it was trained here, or before its weights were loaded.
    """

    problem: Problem
    test: Problem | None
    as_built: Problem | None
    training: Training | None


def prepare(
    model: str,
    weights: Path | None,
    data: str,
    test_data: str | None,
    per_class: int | None,
    epochs: int | None,
    learning_rate: float | None,
    seed: int,
    options: dict[str, Any],
) -> Net:
    """The net and data of a command line, trained here where that is asked for.

    Raises
    ------
    ValueError
        If an option is given that would have no effect; see also :func:`built_in`, :func:`own`.
    """
    on_digits = data == DIGITS
    trained_here = known_network(model) and weights is None and on_digits
    for name, given, used, why in (
        ("--test-data", test_data, not on_digits, "the digits bring their own"),
        ("--per-class", per_class, on_digits, "all of your own data are used"),
        ("--epochs", epochs, trained_here, "only a built-in net on digits is trained here"),
        ("--learning-rate", learning_rate, trained_here, "only a built-in net is trained here"),
    ):
        if given is not None and not used:
            raise ValueError(f"expected no {name}, got {given}: {why}; leave it out")
    samples = PER_CLASS if per_class is None else per_class
    if not trained_here:
        return own(model, weights, data, test_data, samples, seed, options)
    epochs = EPOCHS if epochs is None else epochs
    learning_rate = LEARNING_RATE if learning_rate is None else learning_rate
    return built_in(model, samples, epochs, learning_rate, seed, **options)


def built_in(
    name: str, per_class: int, epochs: int, learning_rate: float, seed: int, **options: Any
) -> Net:
    """A built-in net, trained on the digits; says so where it does not reach zero error."""
    split = dataset(DIGITS, per_class, seed, for_network=name)
    model = network(name, split.shape, split.num_classes, seed)
    as_built = copy.deepcopy(model).eval()
    training = train(model, *split.train, epochs=epochs, learning_rate=learning_rate, seed=seed)
    if training.error_rate > 0:
        print(
            f"note: {training.error_rate:.1%} of the training samples are still wrong after "
            f"{epochs} epochs; the papers train to zero error (raise --epochs)",
            file=sys.stderr,
        )
    problems = [
        Problem(net, part, **options)
        for net, part in ((model, split.train), (model, split.test), (as_built, split.train))
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
        If one of them is not there or not what it should be; see :mod:`deepspec.cli.loading`.
    """
    # The user's functions draw from the global generator; --seed is to govern them too.
    torch.manual_seed(seed)
    split = dataset(DIGITS, per_class, seed, for_network=model_name)
    # A bare word can only be meant as a net's name, so the nearest one is told.
    known = known_network(model_name) or not set(":./\\") & set(model_name)
    model = network(model_name, split.shape, 10, seed) if known else from_factory(model_name)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"expected {model_name} to return a torch.nn.Module, got {type(model).__name__}"
        )
    as_built = None
    if weights is None:
        print(
            f"note: attributing the net as {model_name} returns it; pass --weights to load a "
            "trained state",
            file=sys.stderr,
        )
    else:
        as_built = copy.deepcopy(model)
        load_weights(model, weights)
    train_data: Any
    held_out: Any
    if data == DIGITS:
        train_data, held_out = split.train, split.test
    else:
        train_data = from_factory(data)
        held_out = None if test_data is None else from_factory(test_data)
    return Net(
        Problem(model, train_data, **options),
        None if held_out is None else Problem(model, held_out, **options),
        None if as_built is None else Problem(as_built, train_data, **options),
        None,
    )
