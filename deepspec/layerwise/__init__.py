"""The net layer by layer: features, backpropagated errors, gradients, weights, neural collapse."""

from deepspec.layerwise.collapse import neural_collapse
from deepspec.layerwise.layers import Layer, Layers
from deepspec.layerwise.mean_products import MeanProducts
from deepspec.layerwise.weights import WeightKnockout

__all__ = ["Layer", "Layers", "MeanProducts", "WeightKnockout", "neural_collapse"]
