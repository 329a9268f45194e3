"""Products with J = ∂f/∂θ and with second derivatives, over all batches, as fast as can be."""
