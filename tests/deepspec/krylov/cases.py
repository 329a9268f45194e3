"""Matrices with prescribed spectra: what every estimator is held against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepspec.operators.base import SymmetricOperator
from deepspec.operators.matrix import MatrixOperator


def _spectra() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    bulk = np.linalg.eigvalsh(np.cov(rng.standard_normal((90, 240))))
    return {
        "spike near the bulk": np.append(bulk, 1.03 * bulk.max()),
        "multiplicities": np.repeat([3.0, 1.0, 0.25, -2.0], [4, 7, 20, 3]),
        "zero": np.zeros(30),
        "rank one": np.append(np.zeros(40), 5.0),
        "identity": np.ones(25),
        "indefinite": rng.standard_normal(60),
        "condition 1e12": 10.0 ** np.linspace(-12, 0, 48),
        "p = 1": np.array([2.5]),
    }


SPECTRA = {name: np.sort(values) for name, values in _spectra().items()}


def eigenvalues(name: str) -> Tensor:
    """Ascending."""
    return torch.from_numpy(SPECTRA[name])


def rotated(values: Tensor, dtype: torch.dtype = torch.float64, seed: int = 0) -> MatrixOperator:
    """A dense matrix with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(normal).Q
    matrix = (turn * values) @ turn.T
    return MatrixOperator(((matrix + matrix.T) / 2).to(dtype))


class Diagonal(SymmetricOperator):
    """diag(d): for spectra in quantity, and to count or spoil products."""

    def __init__(self, diagonal: Tensor) -> None:
        self.diagonal = diagonal
        self.matvecs = 0

    @property
    def size(self) -> int:
        return self.diagonal.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.diagonal.dtype

    @property
    def device(self) -> torch.device:
        return self.diagonal.device

    def _product(self, columns: Tensor) -> Tensor:
        self.matvecs += columns.shape[1]
        return self.diagonal[:, None] * columns


class Interrupted(RuntimeError):
    pass


class Breaking(Diagonal):
    """Stops where it would have to take more than so many products."""

    def __init__(self, diagonal: torch.Tensor, after: int) -> None:
        super().__init__(diagonal)
        self.after = after

    def fingerprint(self) -> dict:
        return {"operator": "diagonal", "sum": float(self.diagonal.sum())}

    def _product(self, columns: torch.Tensor) -> torch.Tensor:
        if 0 <= self.after < self.matvecs + columns.shape[1]:
            raise Interrupted
        return super()._product(columns)


def normal(size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
