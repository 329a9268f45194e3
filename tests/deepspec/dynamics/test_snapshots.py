"""Snapshots are found, read back to the bit, and refused where they are of another net."""

from pathlib import Path

import pytest
import torch
from torch import nn

from deepspec.cli.loading import load_weights
from deepspec.dynamics import Snapshots, snapshot_epochs, trajectory
from deepspec.dynamics.snapshots import snapshot_name, write_snapshot


def nets(folder: Path) -> dict[int, nn.Module]:
    made = {epoch: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for epoch in (0, 1, 12)}
    for epoch, net in made.items():
        write_snapshot(folder, epoch, net)
    return made


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = nets(tmp_path)
    template = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = template[0].weight.detach().clone()
    snapshots = Snapshots(tmp_path, template)
    assert snapshots.epochs == (0, 1, 12)
    assert len(snapshots) == 3
    assert "epochs 0, 1, 12" in repr(snapshots)
    for net, epoch in zip(snapshots, snapshots.epochs, strict=True):
        assert not net.training
        for name, value in made[epoch].state_dict().items():
            assert torch.equal(net.state_dict()[name], value)
    assert torch.equal(template[0].weight, before)
    load_weights(template, tmp_path / snapshot_name(12))  # a plain state dict
    assert torch.equal(template[0].weight, made[12][0].weight)
    weights = trajectory(snapshots, lambda net: net.get_parameter("0.weight").detach())
    assert list(weights) == [0, 1, 12]
    assert torch.equal(weights[1], made[1][0].weight)


def test_snapshots_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train with snapshots="):
        Snapshots(tmp_path / "nowhere", nn.Linear(1, 1))
    nets(tmp_path)
    with pytest.raises(ValueError, match=r"0\.bias is \(2,\) there and \(3,\) here"):
        Snapshots(tmp_path, nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(2))).at(1)
    mine = Snapshots(tmp_path, nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    with pytest.raises(ValueError, match=r"0, 1, 12.*got 5"):
        mine.at(5)
    (tmp_path / snapshot_name(1)).write_bytes(b"torn")
    with pytest.raises(ValueError, match="damaged"):
        mine.at(1)


@pytest.mark.parametrize("epochs", [3, 60, 200, 350])
def test_logarithmic_epochs_run_from_the_first_to_the_last(epochs: int) -> None:
    chosen = snapshot_epochs("log:8", epochs)
    assert chosen[:2] == (0, 1)
    assert chosen[-1] == epochs
    assert len(chosen) <= 9
