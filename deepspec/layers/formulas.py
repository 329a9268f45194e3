"""Which layers have a formula."""

from __future__ import annotations

import torch
from torch import nn

from deepspec.layers.affine import (
    ConvolutionFormula,
    EmbeddingFormula,
    LinearFormula,
    SeriesConvolutionFormula,
    TransposedLinearFormula,
)
from deepspec.layers.formula import LayerFormula
from deepspec.layers.normalization import BatchNormFormula, LayerNormFormula

# By name, so that a library that need not be there is not imported.
HUGGING_FACE_CONV1D = ("transformers.pytorch_utils", "Conv1D")


def layer_formula(
    module: nn.Module, weight: bool, bias: bool, dtype: torch.dtype
) -> LayerFormula | None:
    """The formula for a module, ``None`` where there is none.

    Exact types only: a subclass may compute something else.
    """
    kind: LayerFormula | None = None
    if type(module) is nn.Linear:
        kind = LinearFormula(weight, bias)
    elif (type(module).__module__, type(module).__qualname__) == HUGGING_FACE_CONV1D:
        kind = TransposedLinearFormula(weight, bias)
    elif type(module) is nn.Conv1d:
        kind = SeriesConvolutionFormula.of(module, weight, bias)
    elif type(module) is nn.Conv2d:
        kind = ConvolutionFormula.of(module, weight, bias)
    elif type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
        kind = BatchNormFormula(weight, bias)
    elif type(module) is nn.LayerNorm:
        kind = LayerNormFormula(weight, bias, tuple(module.normalized_shape), module.eps)
    elif type(module) is nn.Embedding:
        kind = EmbeddingFormula(weight, bias, module.num_embeddings, module.padding_idx, dtype)
    return kind if kind is not None and kind.covers(module) else None
