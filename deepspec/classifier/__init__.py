"""A net and its data: its logits as a function of the parameters θ, checked before any work."""
