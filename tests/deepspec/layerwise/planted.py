"""Made-up inputs and errors of one layer, in ragged batches, and its matrices by definition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.layerwise.records import LayerBatch, Shared


@dataclass(frozen=True)
class Planted:
    """n samples of t positions; everything random but for labels and batch sizes."""

    labels: tuple[int, ...]
    classes: int
    positions: int
    outputs: int
    inputs: int
    batch: int = 3

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(5)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        n, C, t = len(self.labels), self.classes, self.positions
        labels = torch.tensor(self.labels)
        # Correlated across positions, and larger for some classes, as those of nets are.
        h = (normal(n, 1, self.inputs) + normal(n, t, self.inputs)) * (1 + labels)[:, None, None]
        delta = normal(n, C, 1, self.outputs) + normal(n, C, t, self.outputs)
        weights = torch.softmax(normal(n, C), dim=1) / n
        return h, delta, weights, labels

    def batches(self) -> Iterator[LayerBatch]:
        h, delta, weights, labels = self.tensors()
        for start in range(0, len(labels), self.batch):
            rows = slice(start, min(start + self.batch, len(labels)))
            yield LayerBatch(
                rows=rows,
                inputs=h[rows],
                errors=delta[rows],
                weights=weights[rows],
                labels=labels[rows],
                counted=torch.ones(h[rows].shape[:2], dtype=torch.bool),
                num_samples=len(labels),
            )

    def with_ones(self, bias: bool) -> Tensor:
        h = self.tensors()[0]
        return torch.cat([h, torch.ones_like(h[..., :1])], dim=-1) if bias else h

    def curvature(self, bias: bool) -> Tensor:
        """G^l = Σ w vec(g) vec(g)ᵀ, sample by sample."""
        _, delta, weights, labels = self.tensors()
        h = self.with_ones(bias)
        total = torch.zeros(2 * (self.outputs * h.shape[2],), dtype=torch.float64)
        for i in range(len(labels)):
            for other in range(self.classes):
                g = (delta[i, other].T @ h[i]).flatten()
                total += weights[i, other] * torch.outer(g, g)
        return total

    def moments(
        self, shared: Shared, bias: bool, members: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Δ and H, sums over some samples (all by default) of Δ's and H's own weights."""
        _, delta, weights, labels = self.tensors()
        h, n, t = self.with_ones(bias), len(labels), self.positions
        H = torch.zeros(2 * (h.shape[2],), dtype=torch.float64)
        D = torch.zeros(2 * (self.outputs,), dtype=torch.float64)
        chosen = range(n) if members is None else members.nonzero()[:, 0].tolist()
        for i in chosen:
            if shared == "reduce":
                H += torch.outer(h[i].mean(0), h[i].mean(0)) / n
            for place in range(t if shared == "expand" else 0):
                H += torch.outer(h[i, place], h[i, place]) / (n * t)
            for other in range(self.classes):
                errors = delta[i, other]
                if shared == "reduce":
                    errors = errors.sum(0, keepdim=True)
                for e in errors:
                    D += weights[i, other] * torch.outer(e, e)
        return D, H


# Unequal classes, batches that do not divide them; an empty class; positions; fewer samples than
# inputs, so that factors are held by rows; a layer wider at either end.
PLANTED = {
    "vectors": Planted((0, 0, 2, 1, 0, 2, 2, 0), 3, 1, 4, 3),
    "empty class": Planted((0, 3, 3, 0, 1), 4, 1, 3, 5, 2),
    "positions": Planted((1, 0, 2, 1, 1, 0, 1), 3, 3, 3, 4),
    "few samples": Planted((0, 1, 1), 2, 1, 9, 11),
    "few samples, positions": Planted((0, 1, 1), 2, 2, 3, 17),
}
