"""Two small attributions, saved as two epochs of one run."""

from pathlib import Path

import torch

import deepspec


def save_two(folder: Path) -> Path:
    """Write ``epoch-9`` and ``epoch-10`` into the folder."""
    for number in (9, 10):
        generator = torch.Generator().manual_seed(number)
        labels = torch.arange(24) % 3
        vectors = torch.randn(24, 3, 6, generator=generator, dtype=torch.float64)
        vectors += 2 * torch.eye(3, 6, dtype=torch.float64)[labels][:, None]
        found = deepspec.attribute(deepspec.ClassArray(vectors, labels), draws=2)
        found.save(folder / f"epoch-{number}")
    return folder
