"""How spectra change while a net is trained: snapshots, trajectories, a recorder."""

from deepspec.dynamics.snapshots import Snapshots, snapshot_epochs, trajectory

__all__ = ["Snapshots", "snapshot_epochs", "trajectory"]
