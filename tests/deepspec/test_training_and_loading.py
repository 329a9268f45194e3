"""Data, training, and a user's own model and weights."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deepspec.cli.loading import from_factory, load_weights
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import convnet, mlp, vgg11
from deepspec.zoo.training import train


def test_the_split_is_balanced_disjoint_and_repeatable() -> None:
    split = digits(per_class=50, seed=1)
    again, other = digits(per_class=50, seed=1), digits(per_class=50, seed=2)
    assert torch.bincount(split.train_labels).tolist() == [50] * 10
    assert len(split.train_labels) + len(split.test_labels) == 1797
    assert torch.equal(split.train_inputs, again.train_inputs)
    assert not torch.equal(split.train_inputs, other.train_inputs)
    assert float(split.train_inputs.mean()) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("per_class", [0, 174])
def test_a_split_that_cannot_be_made_is_refused(per_class: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.173"):
        digits(per_class=per_class)


def test_training_reaches_zero_error_and_repeats() -> None:
    split = digits(per_class=20)
    runs = []
    for _ in range(2):
        model = mlp(64, (32,), seed=3)
        runs.append((train(model, *split.train, epochs=60, seed=4), model))
    assert runs[0][0].error_rate == 0.0
    assert runs[0][0] == runs[1][0]
    assert not runs[0][1].training
    convolutional = convnet()
    images = digits(per_class=20, image=True)
    assert train(convolutional, *images.train, epochs=30).error_rate <= 0.05


def test_training_that_cannot_work_is_refused() -> None:
    split = digits(per_class=2)
    with pytest.raises(ValueError, match="3 epochs"):
        train(mlp(), *split.train, epochs=2)
    exploding = nn.Sequential(nn.Linear(64, 10), nn.Linear(10, 10), nn.Linear(10, 10))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train(exploding, *split.train, epochs=30, learning_rate=1e6)


def test_networks_do_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    left, right = mlp(seed=5), mlp(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(
        torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True)
    )
    with torch.device("meta"):
        assert sum(p.numel() for p in vgg11().parameters()) == 28_165_898


def test_factories_from_files_and_modules(tmp_path: Path) -> None:
    file = tmp_path / "mynet.py"
    file.write_text("import torch\ndef build():\n    return torch.nn.Linear(3, 2)\n")
    assert isinstance(from_factory(f"{file}:build"), nn.Linear)
    assert isinstance(from_factory("deepspec.zoo.networks:mlp"), nn.Sequential)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nocolon", "module:function"),
        ("nowhere.py:build", "Python file"),
        ("no_such_module:build", "importable"),
        ("deepspec.zoo.networks:nothing", "function 'nothing'"),
    ],
)
def test_factories_that_are_not_there(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_factory(name)


def test_a_file_runs_once_beside_its_neighbours_whatever_it_is_called(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"beside_{folder}.py").write_text(f"VALUE = {folder!r}")
        (tmp_path / folder / "mynet.py").write_text(
            f"from beside_{folder} import VALUE\nruns = []\nruns.append(1)\n"
            "def value():\n    return VALUE\ndef ran():\n    return runs\n"
            f"def late():\n    import beside_{folder}\n    return beside_{folder}.VALUE\n"
        )
    before = list(sys.path)
    one, two = (f"{tmp_path / folder / 'mynet.py'}" for folder in ("one", "two"))
    assert [from_factory(f"{file}:value") for file in (one, two)] == ["one", "two"]
    assert from_factory(f"{one}:late") == "one"
    assert from_factory(f"{one}:ran") is from_factory(f"{one}:ran")
    assert sys.path == before


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def build():\n    return [][3]\n", r"build in .*mynet\.py:2 raised IndexError: list"),
        ("def build():\n    assert False\n", r"build in .*mynet\.py:2 raised AssertionError$"),
        ("def build():\n    return {}['x']\n", r"mynet\.py:2 raised KeyError: 'x'"),
        ("def build() return", r"mynet\.py:1 raised SyntaxError"),
        ("\nimport no_such_neighbour\n", r"^\S*mynet\.py:2 raised ModuleNotFoundError"),
        ("import torch\ndef build():\n    return torch.ones(2) @ torch.ones(3)", r":3 raised Runt"),
    ],
)
def test_what_a_factory_raises_is_named_with_its_line(
    tmp_path: Path, body: str, words: str
) -> None:
    (tmp_path / "mynet.py").write_text(body)
    for _ in range(2):  # a file that failed is not taken for one that ran
        with pytest.raises(ValueError, match=words):
            from_factory(f"{tmp_path / 'mynet.py'}:build")


def test_a_module_that_imports_in_vain_is_told_from_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_mine.py").write_text("import no_such_neighbour\n")
    with pytest.raises(ValueError, match="raised ModuleNotFoundError: No module named 'no_such"):
        from_factory("module_of_mine:build")


class Bomb:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never be printed",))


def test_weights_in_every_safe_form(tmp_path: Path) -> None:
    source = mlp(4, (3,), 2, seed=1)
    torch.save(source.state_dict(), tmp_path / "plain.pt")
    for key in ("state_dict", "model_state_dict", "model"):
        torch.save({key: source.state_dict(), "epoch": 3}, tmp_path / f"{key}.pt")
    save_file(source.state_dict(), tmp_path / "safe.safetensors")
    for name in ("plain", "state_dict", "model_state_dict", "model", "safe"):
        name += ".safetensors" if name == "safe" else ".pt"
        model = mlp(4, (3,), 2, seed=2)
        load_weights(model, tmp_path / name)
        pairs = zip(model.parameters(), source.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_weights_that_would_run_code_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weights": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(ValueError, match=r"can run code \(print\)") as caught:
        load_weights(mlp(), tmp_path / "bomb.pt")
    assert "never" not in capsys.readouterr().out
    assert "weights_only" not in str(caught.value)  # torch's message advises turning it off


@pytest.mark.parametrize("content", [b"", b"hello, no weights here\n", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged|expected a safetensors file|the file is empty"):
        load_weights(mlp(), tmp_path / name)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save(mlp(4, (3,), 2).state_dict(), tmp_path / "small.pt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    with pytest.raises(ValueError, match="do not fit"):
        load_weights(mlp(), tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"state dict.* got list"):
        load_weights(mlp(), tmp_path / "list.pt")
    torch.save({"net": mlp().state_dict(), "epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"under one of state_dict, .* got entries 'net', 'epoch'"):
        load_weights(mlp(), tmp_path / "other.pt")
    for prefix, words in (("module.", "DataParallel"), ("_orig_mod.", "torch.compile")):
        named = {f"{prefix}{name}": value for name, value in mlp().state_dict().items()}
        torch.save(named, tmp_path / "prefixed.pt")
        with pytest.raises(ValueError, match=f"begins with '{prefix}', as {words} leaves them"):
            load_weights(mlp(), tmp_path / "prefixed.pt")
    with pytest.raises(ValueError, match="safetensors file"):
        load_weights(mlp(), tmp_path / "broken.safetensors")
    with pytest.raises(FileNotFoundError, match="weights"):
        load_weights(mlp(), tmp_path / "nowhere.pt")
