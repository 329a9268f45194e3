"""Nets and data by name: built in, or of a library that stands in here as a stub."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from deepspec.zoo.libraries import from_library, with_head
from deepspec.zoo.registry import (
    DATASETS,
    NETWORKS,
    SAMPLE_SIZES,
    dataset,
    known_network,
    learning_rates,
    network,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_net_takes_what_its_entry_says(name: str) -> None:
    side = NETWORKS[name].side
    shape = (1, side, side) if side else (40,)
    with torch.device("meta"):
        assert network(name, shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)
    if side:
        with pytest.raises(ValueError, match=f"at least {side} pixels .* {name}"):
            network(name, (40,), 7)
        with pytest.raises(ValueError, match=f"at least {side} pixels .* {name}"):
            network(name, (1, side - 1, side - 1), 7)


def test_unknown_names_are_told_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"got 'restnet18'; did you mean resnet18.* mlp8x2048"):
        network("restnet18", (1, 32, 32), 10)
    with pytest.raises(ValueError, match=r"data set .*'minst'; did you mean mnist"):
        dataset("minst")
    with pytest.raises(ValueError, match="did you mean timm"):
        from_library("tim:resnet18", 3, 10)
    assert known_network("timm:resnet18")
    assert not known_network("timm")


@pytest.mark.parametrize("name", [name for name, data in DATASETS.items() if not data.on_disk])
def test_data_without_files(name: str) -> None:
    split = dataset(name, 12, seed=3, label_noise=0.5)
    assert len(split.train_labels) == 120
    assert dataset(name).train_inputs.shape[0] == 1000


def test_data_with_files_need_a_root_and_fit_their_net(tmp_path: object) -> None:
    with pytest.raises(ValueError, match="pass root="):
        dataset("cifar10")
    with pytest.raises(FileNotFoundError, match="test_batch"):
        dataset("cifar10", root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="folder of pictures"):
        dataset("folder", root=str(tmp_path))
    assert dataset("digits", 2, for_network="resnet18").shape == (1, 8, 8)
    assert dataset("digits", 2, for_network="vgg16").shape == (1, 32, 32)
    assert dataset("digits", 2, for_network="timm:x").shape == (1, 32, 32)
    assert dataset("digits", 2, for_network="mlp").shape == (64,)
    with pytest.raises(ValueError, match=r"1\.\.173"):
        dataset("digits", 174)


def test_the_papers_grid() -> None:
    spaced = [10 * 500 ** (i / 19) for i in range(20)]
    assert [abs(a - b) <= 1 for a, b in zip(SAMPLE_SIZES, spaced, strict=True)] == [True] * 20
    assert len(learning_rates()) == 100


def stub(name: str, monkeypatch: pytest.MonkeyPatch, **contents: object) -> None:
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def test_nets_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, *, pretrained: bool, num_classes: int, in_chans: int) -> nn.Module:
        assert not pretrained
        return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 64, num_classes))

    models = ["resnet18", "resnet34"]
    stub(
        "timm",
        monkeypatch,
        is_model=models.__contains__,
        list_models=lambda: models,
        create_model=create,
    )
    before = torch.get_rng_state()
    one, two = (network("timm:resnet18", (1, 8, 8), 7, seed=1) for _ in range(2))
    assert torch.equal(one[1].weight, two[1].weight)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match=r"net of timm .*'resnet81'; did you mean resnet18"):
        network("timm:resnet81", (1, 8, 8), 7)
    with pytest.raises(ValueError, match="expected images"):
        network("timm:resnet18", (40,), 7)


def test_nets_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(name: str, weights: str | None, num_classes: int = 1000) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, num_classes))

    contents = {"get_model": get, "list_models": lambda module: ["vgg11"]}
    stub("torchvision", monkeypatch)
    stub("torchvision.models", monkeypatch, **contents)
    assert network("torchvision:vgg11", (3, 32, 32), 5)[1].out_features == 5
    assert network("torchvision:vgg11", (3, 32, 32), 5, pretrained=True)[1].out_features == 5
    with pytest.raises(ValueError, match="3 channels"):
        network("torchvision:vgg11", (1, 32, 32), 5)
    with pytest.raises(ValueError, match="did you mean vgg11"):
        network("torchvision:vgg", (3, 32, 32), 5)


def test_nets_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Vision(SimpleNamespace):
        pass

    class Text(SimpleNamespace):
        pass

    def config(name: str, num_labels: int) -> SimpleNamespace:
        if name == "nowhere":
            raise OSError("no such folder")
        return {"vit": Vision, "bert": Text}[name](num_labels=num_labels, num_channels=3)

    def auto(kind: str) -> SimpleNamespace:
        def build(name: str, config: SimpleNamespace, **_: object) -> nn.Module:
            return nn.Linear(config.num_channels, config.num_labels)

        return SimpleNamespace(
            kind=kind, from_config=lambda config: build("", config), from_pretrained=build
        )

    stub(
        "transformers",
        monkeypatch,
        AutoConfig=SimpleNamespace(from_pretrained=config),
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING={Vision: None},
        AutoModelForImageClassification=auto("image"),
        AutoModelForSequenceClassification=auto("text"),
    )
    assert network("transformers:vit", (1, 8, 8), 5).weight.shape == (5, 1)
    assert network("transformers:bert", (16,), 5, pretrained=True).weight.shape == (5, 3)
    with pytest.raises(ValueError, match=r"config\.json at transformers:nowhere, but no such"):
        network("transformers:nowhere", (16,), 5)


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="pip install timm"):
        network("timm:resnet18", (3, 32, 32), 10)


def test_a_head_needs_a_linear_map() -> None:
    with pytest.raises(ValueError, match="linear head, got ReLU"):
        with_head(nn.ReLU(), 10)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18"])
def test_the_real_libraries(name: str) -> None:
    try:
        importlib.import_module(name.partition(":")[0])
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name.partition(':')[0]} is not installed, or for another torch: {error}")
    assert network(name, (3, 32, 32), 7).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
