"""The net layer by layer: features, backpropagated errors, gradients, weights, neural collapse."""
