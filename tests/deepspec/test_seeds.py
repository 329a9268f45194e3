"""One kind of seed everywhere: a whole number or a torch.Generator, by default 0."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

import deepspec
from deepspec import attribution, krylov
from deepspec.krylov import baselines
from deepspec.seeds import whole_seed
from deepspec.zoo.datasets import digits
from deepspec.zoo.drawn_digits import mnist1d
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import train


def random_functions() -> dict[str, Callable[..., Any]]:
    """Every public function of the library that is defined with a seed or a generator."""
    found = {}
    for module in pkgutil.walk_packages(deepspec.__path__, "deepspec."):
        parts = module.name.split(".")  # pages need an extra, and draw nothing at random
        if any(part.startswith("_") for part in parts) or {"cli", "explore"} & set(parts):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            records = dataclasses.is_dataclass(value)  # of what was given, made whole
            public = inspect.isfunction(value) or inspect.isclass(value)
            if records or not public or name.startswith("_") or value.__module__ != module.name:
                continue
            if {"seed", "generator", "rng"} & set(_parameters(value)):
                found[f"{module.name}.{name}"] = value
    for package in (attribution, baselines, krylov):
        for name in package.__all__:
            value = getattr(package, name)
            if "seed" in _parameters(value):
                found[f"{package.__name__}.{name}"] = value
    return found


def _parameters(value: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(value).parameters)
    except (TypeError, ValueError):
        return {}


def test_a_seed_that_may_be_left_out_is_zero_and_of_one_kind() -> None:
    functions = random_functions()
    assert len(functions) > 25
    for name, function in functions.items():
        parameter = _parameters(function).get("seed")
        if parameter is None or parameter.default is inspect.Parameter.empty:
            continue  # inner ones are told a number, or a stream of it
        assert parameter.default == 0, name
        assert parameter.annotation in ("Seed", deepspec.seeds.Seed), name
        assert not {"generator", "rng"} & set(_parameters(function)), name


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def weights(seed: Any) -> torch.Tensor:
    split = digits(4, seed=seed)
    net = mlp(64, (5,), seed=seed)
    train(net, *split.train, epochs=3, seed=seed)
    return torch.cat([p.detach().flatten() for p in net.parameters()])


RANDOM: dict[str, Callable[[Any], torch.Tensor]] = {
    "digits": lambda seed: digits(4, seed=seed).train_inputs,
    "mnist1d": lambda seed: mnist1d(2, seed, 2).train_inputs,
    "training": weights,
    "estimator": lambda seed: (
        krylov.spectral_density(
            deepspec.MatrixOperator(torch.diag(torch.linspace(0, 1, 30))), 5, seed=seed
        ).ritz_values
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_generators_of_one_seed_agree_and_one_generator_goes_on(name: str) -> None:
    draw = RANDOM[name]
    assert torch.equal(draw(generator()), draw(generator()))
    going_on = generator()
    assert not torch.equal(draw(going_on), draw(going_on))


def test_a_generator_gives_the_seed_that_can_be_given_by_hand() -> None:
    assert torch.equal(
        RANDOM["estimator"](generator()), RANDOM["estimator"](whole_seed(generator()))
    )


@pytest.mark.parametrize("bad", [1.5, "1", None, True])
def test_other_seeds_are_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"a seed as an integer or a torch\.Generator, got"):
        whole_seed(bad)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="a seed of at least 0, got -1"):
        whole_seed(-1)
