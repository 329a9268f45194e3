"""Figures of the theory and of sweeps."""
