"""How spectra change while a net is trained: snapshots, trajectories, a recorder."""

from deepspec.dynamics.recorder import Recorder, read_rows
from deepspec.dynamics.snapshots import Snapshots, snapshot_epochs, trajectory
from deepspec.dynamics.trajectories import Trajectory
from deepspec.layerwise.collapse import NeuralCollapse, neural_collapse

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
