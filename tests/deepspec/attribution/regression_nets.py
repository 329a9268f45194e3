"""Three trained nets whose attribution must not change when the code behind it does."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import deepspec
from deepspec.attribution import Attribution
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import convnet, mlp
from deepspec.zoo.training import train


def _net(kind: str) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor], torch.dtype]:
    if kind == "mlp":
        data, model = digits(12, seed=1), mlp(64, (16,), seed=1)
        dtype = torch.float64
    elif kind == "convnet":
        data, model = digits(8, seed=2, image=True), convnet(seed=2)
        dtype = torch.float32
    else:
        data, model = digits(20, seed=3), mlp(64, (12, 12), seed=3)
        keep = torch.arange(len(data.train_labels)) % 7 > data.train_labels % 5
        train(model, data.train_inputs[keep], data.train_labels[keep], epochs=20, seed=3)
        return model, (data.train_inputs[keep], data.train_labels[keep]), torch.float64
    train(model, *data.train, epochs=25, seed=0)
    return model, data.train, dtype


def attributed(kind: str) -> Attribution:
    model, data, dtype = _net(kind)
    return deepspec.attribute(deepspec.Problem(model, data, dtype=dtype), draws=3, steps=30)


KINDS = ("mlp", "convnet", "unbalanced")


def numbers(found: Attribution) -> dict[str, Any]:
    """What must stay: eigenvalues, shares, nulls, verdicts."""
    split = found.train
    return {
        "top": split.top[:12].tolist(),
        "trace": split.trace,
        "edge": split.edge,
        "parts": {
            d.convention: {p.name: [p.rank, p.trace, *p.top[:5].tolist()] for p in d.parts}
            for d in split.decompositions
        },
        "knockouts": {
            k.part: [k.rank, k.subtracted[:12].tolist(), k.projected[:12].tolist()]
            for k in split.knockouts
        },
        "findings": {
            f.claim: [f.removed, f.by_projection, f.answer, f.present] for f in split.findings
        },
        "predicted": {
            m: getattr(split.predicted, m).tolist()
            for m in ("class_only", "means", "first_order", "root", "coupled")
        },
    }
