"""Checkpoints and results on disk: JSON beside safetensors, written whole or not at all."""
