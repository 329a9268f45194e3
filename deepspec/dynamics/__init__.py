"""How spectra change while a net is trained: snapshots, trajectories, a recorder."""

from deepspec.dynamics.collapse import NeuralCollapse, neural_collapse
from deepspec.dynamics.recorder import Recorder, read_rows
from deepspec.dynamics.snapshots import Snapshots, snapshot_epochs, trajectory
from deepspec.dynamics.trajectories import Trajectory

__all__ = [
    "NeuralCollapse",
    "Recorder",
    "Snapshots",
    "Trajectory",
    "neural_collapse",
    "read_rows",
    "snapshot_epochs",
    "trajectory",
]
