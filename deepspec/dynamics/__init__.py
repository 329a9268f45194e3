"""How spectra change while a net is trained: snapshots, trajectories, a recorder."""

from deepspec.dynamics.analysis import analyse
from deepspec.dynamics.recorder import Recorder, read_rows
from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.dynamics.snapshots import Snapshots, snapshot_epochs, trajectory
from deepspec.dynamics.trajectories import Trajectory
from deepspec.dynamics.trends import OverSeeds, Trends, measure_trends
from deepspec.layerwise.collapse import NeuralCollapse, neural_collapse

__all__ = [
    "NeuralCollapse",
    "OverSeeds",
    "Recorder",
    "SnapshotSpectra",
    "Snapshots",
    "Trajectory",
    "Trends",
    "analyse",
    "measure_trends",
    "neural_collapse",
    "read_rows",
    "snapshot_epochs",
    "trajectory",
]
