"""A layer's inputs and errors by definition: one sample, one cross-class, one hook at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Arranged = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Observed:
    """Of each sample: inputs (t, i) and errors (C, t, o)."""

    inputs: list[Tensor]
    errors: list[Tensor]
    probabilities: Tensor


def observe(
    model: nn.Module,
    module: nn.Module,
    samples: list[object],
    classes: int,
    inputs: Arranged,
    outputs: Arranged,
) -> Observed:
    """δ_{i,c'} = ∂ℓ(f_i, e_c')/∂z by autograd from each loss, z the module's output."""
    found: list[list[Tensor]] = [[], [], []]
    for sample in samples:
        kept: dict[str, Tensor] = {}

        def note(_: nn.Module, args: tuple, output: Tensor, kept: dict = kept) -> Tensor:
            kept["x"] = args[0].detach()
            kept["probe"] = torch.zeros_like(output).requires_grad_()
            return output + kept["probe"]

        handle = module.register_forward_hook(note)
        arguments = sample if isinstance(sample, dict) else {"input": sample}
        logits = model(**arguments) if isinstance(sample, dict) else model(sample)
        handle.remove()
        rows = [
            torch.autograd.grad(
                F.cross_entropy(logits, torch.tensor([c])), kept["probe"], retain_graph=True
            )[0]
            for c in range(classes)
        ]
        found[0].append(inputs(kept["x"])[0])
        found[1].append(torch.stack([outputs(row)[0] for row in rows]))
        found[2].append(torch.softmax(logits.detach(), dim=1)[0])
    return Observed(found[0], found[1], torch.stack(found[2]))


def plain(x: Tensor) -> Tensor:
    """Vectors or sequences: positions before the last dimension."""
    return x.reshape(len(x), -1, x.shape[-1])


def places(x: Tensor) -> Tensor:
    """Channels of an image, place by place."""
    return x.flatten(2).transpose(1, 2)


def patches(conv: nn.Conv2d) -> Arranged:
    """What each place of a convolution's output sees."""
    return lambda x: F.unfold(
        x, conv.kernel_size, conv.dilation, conv.padding, conv.stride
    ).transpose(1, 2)


def normalised(norm: nn.BatchNorm2d) -> Arranged:
    """What the weight of a batch normalisation multiplies."""

    def arranged(x: Tensor) -> Tensor:
        scale = (norm.running_var + norm.eps).sqrt()
        return places((x - norm.running_mean[:, None, None]) / scale[:, None, None])

    return arranged


def ways(module: nn.Module) -> tuple[Arranged, Arranged]:
    """How inputs and outputs of a module are arranged by position."""
    if isinstance(module, nn.Conv2d):
        return patches(module), places
    if isinstance(module, nn.BatchNorm2d):
        return normalised(module), places
    return plain, plain


def feature_rows(
    found: Observed, labels: Tensor, shared: str, counted: list[Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(vectors, labels, weights) of H, position by position."""
    n = len(found.inputs)
    vectors, owners, weights = [], [], []
    for i, x in enumerate(found.inputs):
        kept = x if counted is None else x[counted[i]]
        rows = kept.mean(dim=0, keepdim=True) if shared == "reduce" else kept
        for row in rows:
            vectors.append(row)
            owners.append(int(labels[i]))
            weights.append(1 / (n * len(rows)))
    return torch.stack(vectors), torch.tensor(owners), torch.tensor(weights, dtype=torch.float64)


def error_rows(
    found: Observed, labels: Tensor, shared: str, counted: list[Tensor] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(vectors, labels, weights) of Δ, position by position."""
    n = len(found.errors)
    vectors, owners, weights = [], [], []
    for i, delta in enumerate(found.errors):
        kept = delta if counted is None else delta[:, counted[i]]
        rows = kept.sum(dim=1, keepdim=True) if shared == "reduce" else kept
        for row in rows.unbind(1):
            vectors.append(row)
            owners.append(int(labels[i]))
            weights.append(found.probabilities[i] / n)
    return torch.stack(vectors), torch.tensor(owners), torch.stack(weights)
