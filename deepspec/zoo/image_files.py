"""Images in the formats they were published in: IDX, CIFAR's binary version, folders of pictures.

torchvision reads CIFAR from pickles, which run code when opened; the binary version of the same
data is bytes and nothing else, so that one is read here.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def read_idx(path: Path) -> UInt8[Tensor, "..."]:
    """An array of bytes in IDX format (LeCun), gzipped or not.

    Raises
    ------
    ValueError
        If the file is not that, or holds fewer or more bytes than its header says.
    """
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise ValueError(f"{path} is damaged ({error}); fetch it again") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"expected bytes in IDX format in {path}, found something else")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(int).tolist()
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if body.size != math.prod(shape):
        raise ValueError(
            f"expected {math.prod(shape)} bytes for an array of shape {tuple(shape)} in {path}, "
            f"got {body.size}; fetch it again"
        )
    return torch.from_numpy(body.reshape(shape).copy())


def read_cifar(
    paths: Sequence[Path], label_bytes: int
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Records of labels, of which the last is used, and 3 × 32 × 32 pixels (Krizhevsky, 2009).

    Raises
    ------
    ValueError
        If a file is not a whole number of records.
    """
    size = label_bytes + 3 * 32 * 32
    parts = []
    for path in paths:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        if content.size == 0 or content.size % size:
            raise ValueError(
                f"expected records of {size} bytes in {path}, got {content.size} bytes; it is not "
                "CIFAR's binary version, or damaged"
            )
        parts.append(content.reshape(-1, size))
    records = torch.from_numpy(np.concatenate(parts))
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1].long()


def list_folder(root: Path) -> tuple[list[Path], Int[Tensor, " n"], list[str]]:
    """Pictures in one folder a class: their paths, labels and the classes' names, sorted.

    Raises
    ------
    FileNotFoundError
        If there are no such folders, or one holds no picture.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if len(folders) < 2:
        raise FileNotFoundError(
            f"expected one folder of pictures for each class in {root}, found {len(folders)}; put "
            f"them there as {root}/CLASS/NAME.png"
        )
    paths, labels = [], []
    for label, folder in enumerate(folders):
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
        if not found:
            raise FileNotFoundError(
                f"expected pictures ({', '.join(sorted(PICTURES))}) in {folder}, found none"
            )
        paths += found
        labels += [label] * len(found)
    return paths, torch.tensor(labels), [folder.name for folder in folders]


def read_pictures(paths: Sequence[Path], side: int) -> Float[Tensor, "n 3 s s"]:
    """Pictures in colour, 0..1, the shorter side brought to ``side`` and the middle cut out.

    Raises
    ------
    ValueError
        If Pillow is missing, or a file is no picture.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ValueError(
            "expected Pillow, to read pictures; pip install 'deepspec-ccm[vision]'"
        ) from error
    images = torch.empty(len(paths), 3, side, side)
    for place, path in enumerate(paths):
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"expected a picture in {path}, but {error}") from error
        wide, high = picture.size
        scale = side / min(wide, high)
        wide, high = max(side, round(wide * scale)), max(side, round(high * scale))
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
        left, top = (wide - side) // 2, (high - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
        images[place] = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    return images
