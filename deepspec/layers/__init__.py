"""Layers from the outside: what they see, what errors reach them, what their parameters do."""
