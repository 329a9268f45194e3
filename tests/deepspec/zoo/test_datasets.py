"""Data drawn here and data read from files in their original formats, which the tests write."""

import gzip
import random
import struct
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from deepspec.zoo import drawn_digits as recipe
from deepspec.zoo.datasets import balanced, digits, padded
from deepspec.zoo.drawn_digits import Draws, mnist1d, render
from deepspec.zoo.image_files import list_folder, read_cifar, read_idx, read_pictures
from deepspec.zoo.images import cifar10, cifar100, fashion_mnist, image_folder, mnist


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_mnist(root: Path, folder: str = "MNIST", end: str = "") -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = {}
    for part, per_class in (("train", 4), ("t10k", 2)):
        labels = generator.permutation(np.repeat(np.arange(10), per_class))
        arrays[part] = generator.integers(0, 256, (len(labels), 28, 28))
        arrays[f"{part} labels"] = labels
        raw = root / folder / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte{end}", arrays[part])
        write_idx(raw / f"{part}-labels-idx1-ubyte{end}", labels)
    return arrays


def write_cifar(path: Path, labels: np.ndarray, coarse: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3072))
    columns = [labels[:, None] // 5, labels[:, None]] if coarse else [labels[:, None]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.concatenate([*columns, pixels], axis=1).astype(np.uint8).tobytes())
    return pixels


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_from_its_files(tmp_path: Path, end: str) -> None:
    arrays = write_mnist(tmp_path, end=end)
    split = mnist(3, seed=1, root=tmp_path)
    assert split.train_inputs.shape == (30, 1, 32, 32)
    assert torch.bincount(split.train_labels).tolist() == [3] * 10
    assert split.test_inputs.shape == (20, 1, 32, 32)
    assert float(split.train_inputs.mean()) == pytest.approx(0, abs=1e-6)
    assert float(split.train_inputs.std()) == pytest.approx(1, abs=1e-5)
    # Held out: all, in the files' order, by the training set's mean and deviation.
    expected = padded(torch.as_tensor(arrays["t10k"] / 255).float()[:, None], 32)
    slope = float(split.test_inputs.std() / expected.std())
    found = split.test_inputs - split.test_inputs.mean()
    assert torch.allclose(found, slope * (expected - expected.mean()), atol=1e-5)
    assert split.test_labels.tolist() == arrays["t10k labels"].tolist()


def test_subsets_repeat_and_nest(tmp_path: Path) -> None:
    labels = torch.arange(6).repeat(20)
    small, large = balanced(labels, 3, 6, seed=5), balanced(labels, 8, 6, seed=5)
    assert set(small.tolist()) < set(large.tolist())
    assert torch.equal(small, balanced(labels, 3, 6, seed=5))
    assert not torch.equal(small, balanced(labels, 3, 6, seed=6))
    assert torch.equal(balanced(labels, None, 6, seed=5), torch.arange(120))


def test_fashion_mnist_and_what_a_class_has(tmp_path: Path) -> None:
    write_mnist(tmp_path, "FashionMNIST")
    assert fashion_mnist(root=tmp_path, test_per_class=1).test_labels.tolist() == list(range(10))
    for number in (0, 5):
        with pytest.raises(ValueError, match=rf"per_class in 1\.\.4, got {number}: the smallest"):
            fashion_mnist(number, root=tmp_path)


def test_cifar_from_its_binary_version(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    for batch in range(1, 6):
        write_cifar(folder / f"data_batch_{batch}.bin", np.arange(10))
    pixels = write_cifar(folder / "test_batch.bin", np.arange(10)[::-1])
    split = cifar10(2, root=tmp_path)
    assert split.train_inputs.shape == (20, 3, 32, 32)
    assert split.test_labels.tolist() == list(range(9, -1, -1))
    assert torch.allclose(split.train_inputs.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    images, _ = read_cifar([folder / "test_batch.bin"], 1)
    assert torch.equal(images.reshape(10, -1), torch.as_tensor(pixels).to(torch.uint8))
    hundred = tmp_path / "cifar-100-binary"
    write_cifar(hundred / "train.bin", np.repeat(np.arange(100), 2), coarse=True)
    write_cifar(hundred / "test.bin", np.arange(100), coarse=True)
    fine = cifar100(1, root=tmp_path)
    assert (fine.num_classes, fine.test_labels.tolist()) == (100, list(range(100)))


def test_folders_of_pictures(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 1)):
        for place, name in enumerate(("ant", "bee")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                colour = np.full((6, 10, 3), (100 * place, 20 * i, 7), np.uint8)
                Image.fromarray(colour).save(tmp_path / part / name / f"{i}.png")
    split = image_folder(2, root=tmp_path, side=4)
    assert split.train_inputs.shape == (4, 3, 4, 4)
    assert (split.train_labels.tolist(), split.test_labels.tolist()) == ([0, 0, 1, 1], [0, 1])
    paths, _, names = list_folder(tmp_path / "train")
    assert names == ["ant", "bee"]
    pictures = read_pictures(paths, 4)
    assert torch.allclose(pictures[:, 0, 0, 0], torch.tensor([0.0] * 3 + [100 / 255] * 3))
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected pictures .* in .*cat, found none"):
        image_folder(root=tmp_path)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"same classes .* cat"):
        image_folder(root=tmp_path)
    with pytest.raises(ValueError, match=r"expected a picture in .*1\.png"):
        read_pictures([tmp_path / "train" / "cat" / "1.png"], 4)
    with pytest.raises(FileNotFoundError, match=r"one folder of pictures for each class"):
        image_folder(root=tmp_path / "nowhere")


def test_a_missing_file_says_what_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin.* in .*cifar-10-batches-bin"):
        cifar10(root=tmp_path)
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"files t10k-labels-idx1-ubyte in .*--download"):
        mnist(root=tmp_path)


def test_a_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(url: str, root: str, md5: str) -> None:
        calls.append((url, md5))
        folder = Path(root) / "cifar-100-binary"
        for name in ("train.bin", "test.bin"):
            write_cifar(folder / name, np.arange(100), coarse=True)

    datasets = SimpleNamespace(
        MNIST=lambda root, download: write_mnist(Path(root)),
        utils=SimpleNamespace(download_and_extract_archive=fetch),
    )
    stub = ModuleType("torchvision")
    stub.datasets = datasets  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", stub)
    assert mnist(root=tmp_path, download=True).num_classes == 10
    assert cifar100(root=tmp_path, download=True).num_classes == 100
    cifar100(root=tmp_path, download=True)  # all there: nothing is fetched again
    assert [url.rsplit("/", 1)[1] for url, _ in calls] == ["cifar-100-binary.tar.gz"]
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match=r"deepspec-ccm\[vision\]"):
        cifar10(root=tmp_path, download=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "IDX format"),
        (b"\0\0\x09\x01\0\0\0\x01\0", "IDX format"),
        (b"\0\0\x08\x01\0\0\0\x03ab", "expected 3 bytes .* got 2"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x01a", mtime=0)[:-4], "damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_idx(tmp_path / "file")


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(ValueError, match=r"n labels .* \(3,\)"):
        mnist(root=tmp_path)
    write_idx(tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte", np.full(40, 10))
    with pytest.raises(ValueError, match="labels below 10 in MNIST, got 10"):
        mnist(root=tmp_path)
    (tmp_path / "cut.bin").write_bytes(b"x" * 3072)
    with pytest.raises(ValueError, match="records of 3073 bytes"):
        read_cifar([tmp_path / "cut.bin"], 1)


def one_by_the_recipe(label: int, draws: Draws, i: int) -> np.ndarray:
    """The published steps, one sample at a time."""
    curves = np.asarray(recipe.TEMPLATES, float)
    curves -= curves.mean(1, keepdims=True)
    curves /= curves.std(1, keepdims=True)
    curves -= curves[:, :1]
    x = curves[label] / 6 + 1e-8
    x = np.concatenate([x, np.zeros(36 + int(draws.padding[i] * 25))])
    x = np.interp(np.linspace(0, 1, 72), np.linspace(0, 1, len(x)), x)
    x *= 1 + 0.4 * (draws.scale[i] - 0.5)
    k = draws.shift[i]
    x = np.concatenate([x[-k:], x[:-k]])
    mask = x != 0
    x = mask * x + (1 - mask) * gaussian_filter(0.25 * draws.correlated[i], 2)
    x = x + 0.02 * draws.independent[i]
    x = x - 0.75 * (draws.shear[i] - 0.5) * np.linspace(-0.5, 0.5, 72)
    return np.interp(np.linspace(0, 1, 40), np.linspace(0, 1, 72), x)


def test_mnist1d_follows_the_published_steps() -> None:
    labels = np.arange(10).repeat(5)
    draws = recipe.draw(50, np.random.default_rng(3))
    expected = np.stack([one_by_the_recipe(label, draws, i) for i, label in enumerate(labels)])
    assert np.abs(render(labels, draws) - expected).max() < 1e-12


def test_mnist1d_repeats_and_leaves_the_global_generators() -> None:
    numpys = np.random.get_state
    states = numpys()[1].copy(), random.getstate(), torch.get_rng_state()
    one, two = mnist1d(20, seed=4), mnist1d(30, seed=4)
    assert torch.equal(one.train_inputs, mnist1d(20, seed=4).train_inputs)
    assert not torch.equal(one.train_inputs, mnist1d(20, seed=5).train_inputs)
    assert torch.equal(one.test_labels, two.test_labels)
    assert one.test_inputs.shape == (1000, 40)
    assert not torch.equal(one.train_inputs[:40], one.test_inputs[:40])
    assert np.array_equal(states[0], numpys()[1])
    assert states[1] == random.getstate()
    assert torch.equal(states[2], torch.get_rng_state())
    for options in ({"per_class": 0}, {"test_per_class": 0}):
        with pytest.raises(ValueError, match="at least 1 sample"):
            mnist1d(**options)


def test_samples_of_a_class_of_mnist1d_differ() -> None:
    """Scatter within classes is of the order of that between them; the digits' is smaller."""
    split = mnist1d(200)
    means = torch.stack([split.train_inputs[split.train_labels == c].mean(0) for c in range(10)])
    within = float((split.train_inputs - means[split.train_labels]).square().mean())
    assert 0.5 < within < 1


def test_digits_as_large_images_and_with_wrong_labels() -> None:
    split = digits(20, image=True, side=32)
    assert split.shape == (1, 32, 32)
    assert float(split.train_inputs.mean()) == pytest.approx(0, abs=1e-5)
    noisy = split.with_label_noise(0.1, seed=2)
    assert int((noisy.train_labels != split.train_labels).sum()) == 20
    assert torch.equal(noisy.train_labels, split.with_label_noise(0.1, seed=2).train_labels)
    assert noisy.test_labels is split.test_labels
    with pytest.raises(ValueError, match=r"share of labels in 0\.\.1, got 2"):
        split.with_label_noise(2)
