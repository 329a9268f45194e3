"""MNIST, Fashion-MNIST, CIFAR10, CIFAR100 and folders of pictures, as the papers use them.

Class-balanced subsets, padded to 32 × 32, standardised, and no augmentation: spectra are of one
fixed matrix (Papyan 2020, D.3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from deepspec.seeds import Seed, whole_seed
from deepspec.zoo.datasets import Split, balanced, padded
from deepspec.zoo.image_files import list_folder, read_cifar, read_idx, read_pictures

SIDE = 32
MNIST_PARTS = ("train", "t10k")
Raw = tuple[Tensor, Int[Tensor, " n"]]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A data set of images: where its files lie below a root, and how it is read when called.

    Attributes
    ----------
    title, classes
        Its name, and how many classes it has.
    folder, files
        In the places that torchvision uses.
    read
        From the files, in order, to raw images and labels: those to train on, those held out.
    url, md5
        Where it is fetched from, unless torchvision knows it by the folder's name.
    """

    title: str
    folder: str
    files: tuple[str, ...]
    classes: int
    read: Callable[[Archive, list[Path]], tuple[Raw, Raw]]
    url: str = ""
    md5: str = ""

    def __call__(
        self,
        per_class: int | None = None,
        seed: Seed = 0,
        *,
        root: str | Path,
        download: bool = False,
        test_per_class: int | None = None,
    ) -> Split:
        """Read a class-balanced subset, padded to 32 × 32.

        Parameters
        ----------
        per_class, test_per_class
            Samples of each class to train on and to hold out; default all there are.
        seed
            Of the draw of the training samples. A smaller draw is part of a larger one.
        root
            Files are read from ``root`` and :attr:`folder`, where torchvision puts them.
        download
            Fetch what is missing, with torchvision.

        Returns
        -------
        Split
            Each channel centred and scaled by its mean and standard deviation over the training
            set.

        Raises
        ------
        FileNotFoundError
            If files are missing; it says which, and where to put them.
        ValueError
            If a class has fewer samples than asked for, or a file is damaged.
        """
        paths = self.fetched(Path(root), download)
        parts = self.read(self, [paths[name] for name in self.files])
        drawn, chosen_by = [], whole_seed(seed)
        for (images, labels), count in zip(parts, (per_class, test_per_class), strict=True):
            if int(labels.max()) >= self.classes:
                raise ValueError(
                    f"expected labels below {self.classes} in {self.title}, got "
                    f"{int(labels.max())}; the files are damaged"
                )
            chosen = balanced(labels, count, self.classes, chosen_by)
            drawn.append((padded(images[chosen].float() / 255, SIDE), labels[chosen]))
        return _standardised(drawn[0], drawn[1], self.classes)

    def fetched(self, root: Path, download: bool) -> dict[str, Path]:
        """The path of each file, gzipped or not.

        Raises
        ------
        FileNotFoundError
            If some are missing, and are not to be downloaded.
        ValueError
            If they are to be, and torchvision cannot be used.
        """
        found = self._found(root)
        missing = [name for name in self.files if name not in found]
        if missing and download:
            self._download(root)
            found = self._found(root)
            missing = [name for name in self.files if name not in found]
        if missing:
            raise FileNotFoundError(
                f"expected {self.title}'s files {', '.join(missing)} in {root / self.folder} "
                "(those of MNIST may end in .gz), found none; put them there, give another root, "
                "or allow a download (download=True; in the shell: --download)"
            )
        return found

    def _found(self, root: Path) -> dict[str, Path]:
        places = (
            (name, root / self.folder / f"{name}{end}")
            for name in self.files
            for end in (".gz", "")
        )
        return {name: path for name, path in places if path.is_file()}

    def _download(self, root: Path) -> None:
        """By torchvision, which knows the mirrors and checks sums; nothing is unpickled."""
        try:
            from torchvision import datasets
        except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
            raise ValueError(
                f"expected torchvision, to download {self.title}; it cannot be imported "
                f"({error}). pip install 'deepspec-ccm[vision]', or fetch the files yourself"
            ) from error
        if self.url:
            datasets.utils.download_and_extract_archive(self.url, str(root), md5=self.md5)
        else:
            getattr(datasets, self.folder.split("/")[0])(str(root), download=True)


def _from_idx(archive: Archive, paths: list[Path]) -> tuple[Raw, Raw]:
    arrays = [read_idx(path) for path in paths]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"expected {archive.title}'s images (n, h, w) and n labels in "
                f"{paths[0].parent}, got shapes {tuple(images.shape)} and "
                f"{tuple(labels.shape)}"
            )
    train, test = ((x[:, None], y.long()) for x, y in (arrays[:2], arrays[2:]))
    return train, test


def _from_cifar(_: Archive, paths: list[Path], *, label_bytes: int) -> tuple[Raw, Raw]:
    """The binary versions, for those of Python are pickles."""
    *train, test = paths
    return read_cifar(train, label_bytes), read_cifar([test], label_bytes)


IDX_FILES = tuple(
    f"{part}-{what}-ubyte" for part in MNIST_PARTS for what in ("images-idx3", "labels-idx1")
)

mnist = Archive(  # LeCun et al. (2010): images (1, 32, 32)
    title="MNIST", folder="MNIST/raw", files=IDX_FILES, classes=10, read=_from_idx
)
fashion_mnist = Archive(  # Xiao et al. (2017)
    title="Fashion-MNIST", folder="FashionMNIST/raw", files=IDX_FILES, classes=10, read=_from_idx
)
cifar10 = Archive(  # Krizhevsky (2009): images (3, 32, 32)
    title="CIFAR10's binary version",
    folder="cifar-10-batches-bin",
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    classes=10,
    read=partial(_from_cifar, label_bytes=1),
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
)
cifar100 = Archive(  # with its 100 fine labels
    title="CIFAR100's binary version",
    folder="cifar-100-binary",
    files=("train.bin", "test.bin"),
    classes=100,
    read=partial(_from_cifar, label_bytes=2),
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
)


def image_folder(
    per_class: int | None = None,
    seed: Seed = 0,
    *,
    root: str | Path,
    test_per_class: int | None = None,
    side: int = 224,
) -> Split:
    """Pictures in ``root/train/CLASS`` and ``root/val/CLASS``, as ImageNet's are; (3, side, side).

    Only the pictures that are drawn are opened: the shorter side is brought to ``side`` and the
    middle cut out. Give ``test_per_class`` where all of ``val`` would not fit the memory.

    Raises
    ------
    FileNotFoundError
        If the folders are not there.
    ValueError
        If ``train`` and ``val`` have other classes, a class too few pictures, or a file is none.
    """
    found = {part: list_folder(Path(root) / part) for part in ("train", "val")}
    names = found["train"][2]
    if found["val"][2] != names:
        odd = sorted(set(names) ^ set(found["val"][2]))
        raise ValueError(
            f"expected the same classes in {root}/train and {root}/val, but not both have "
            f"{', '.join(odd[:5])}"
        )
    drawn = []
    for (paths, labels, _), count in zip(found.values(), (per_class, test_per_class), strict=True):
        chosen = balanced(labels, count, len(names), seed)
        drawn.append((read_pictures([paths[i] for i in chosen.tolist()], side), labels[chosen]))
    return _standardised(drawn[0], drawn[1], len(names))


def _standardised(train: Raw, test: Raw, classes: int) -> Split:
    """Each channel by its mean and standard deviation over the training set."""
    centre = train[0].mean(dim=(0, 2, 3), keepdim=True)
    spread = train[0].std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-8)
    inputs = [(images - centre) / spread for images, _ in (train, test)]
    return Split(inputs[0], train[1], inputs[1], test[1], classes)


IMAGES: dict[str, Callable[..., Split]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "folder": image_folder,
}
