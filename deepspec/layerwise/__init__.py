"""The net layer by layer: features, backpropagated errors, gradients, weights, neural collapse."""

from deepspec.layerwise.agreement import (
    Agreement,
    BlockAgreement,
    CurvatureAgreement,
    block_agreement,
    curvature_agreement,
    layer_agreement,
)
from deepspec.layerwise.collapse import NeuralCollapse, neural_collapse
from deepspec.layerwise.layer import Layer
from deepspec.layerwise.layers import Layers
from deepspec.layerwise.products_of_means import MeanProducts
from deepspec.layerwise.structure import (
    LayerStructure,
    TopSpectra,
    layer_structure,
    layers_in_words,
)
from deepspec.layerwise.weights import WeightKnockout

__all__ = [
    "Agreement",
    "BlockAgreement",
    "CurvatureAgreement",
    "Layer",
    "LayerStructure",
    "Layers",
    "MeanProducts",
    "NeuralCollapse",
    "TopSpectra",
    "WeightKnockout",
    "block_agreement",
    "curvature_agreement",
    "layer_agreement",
    "layer_structure",
    "layers_in_words",
    "neural_collapse",
]
