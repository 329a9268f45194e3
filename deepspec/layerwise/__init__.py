"""The net layer by layer: features, backpropagated errors, gradients, weights, neural collapse."""

from deepspec.layerwise.collapse import neural_collapse
from deepspec.layerwise.layers import Layer, Layers

__all__ = ["Layer", "Layers", "neural_collapse"]
