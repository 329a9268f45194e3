"""The weights of one training at chosen epochs, and any quantity as a function of the epoch."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from deepspec.arguments import check_whole, shown
from deepspec.dynamics.trajectories import Trajectory
from deepspec.storage.checkpoint import write_atomically

NAME = re.compile(r"epoch-(\d{6})\.safetensors")


def snapshot_epochs(plan: str | Iterable[int], epochs: int) -> tuple[int, ...]:
    """The epochs after which weights are kept; 0 is the untrained net.

    Parameters
    ----------
    plan
        ``"log:k"``: the untrained net, and k epochs from the first to the last whose logarithms
        are evenly spaced (fewer where neighbours round to the same one). Or the epochs
        themselves.
    epochs
        How many there are.

    Raises
    ------
    ValueError
        If the plan is neither, or names an epoch beyond the last.

    >>> snapshot_epochs("log:5", 60)
    (0, 1, 3, 8, 22, 60)
    >>> snapshot_epochs([60, 3], 60)
    (3, 60)
    """
    check_whole(epochs, 0, "epochs")
    if isinstance(plan, str):
        kind, _, number = plan.partition(":")
        if kind != "log" or not number.isdecimal() or int(number) < 2:
            raise ValueError(
                'expected snapshots as "log:k" with k of at least 2, or as epochs; got '
                f"{shown(plan)}"
            )
        steps = int(number) - 1
        return tuple(sorted({0} | {round(epochs ** (i / steps)) for i in range(steps + 1)}))
    if not isinstance(plan, Iterable) or isinstance(plan, bytes | nn.Module):
        raise TypeError(
            f'expected snapshots as "log:k" or as epochs, got {shown(plan)}; for example [0, 5]'
        )
    chosen = list(plan)
    for epoch in chosen:
        if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch <= epochs:
            raise ValueError(f"expected epochs in 0..{epochs} for snapshots, got {shown(epoch)}")
    return tuple(sorted(set(chosen)))


class Snapshots(Sequence[nn.Module]):
    """A run's nets, one for each epoch kept, read when asked for.

    Parameters
    ----------
    folder
        Where ``epoch-000012.safetensors`` and its like are: plain state dicts.
    model
        A net of the same architecture; it is copied, never written to.

    Raises
    ------
    FileNotFoundError
        If the folder holds no snapshot.

    >>> import tempfile
    >>> folder, net = Path(tempfile.mkdtemp()), nn.Linear(2, 2)
    >>> write_snapshot(folder, 0, net)
    >>> write_snapshot(folder, 3, net)
    >>> Snapshots(folder, net).epochs
    (0, 3)
    """

    def __init__(self, folder: str | Path, model: nn.Module) -> None:
        self.folder = Path(folder)
        self.model = model
        found = self.folder.iterdir() if self.folder.is_dir() else iter(())
        matches = (NAME.fullmatch(path.name) for path in found)
        self.epochs = tuple(sorted(int(match[1]) for match in matches if match))
        if not self.epochs:
            raise FileNotFoundError(
                f"expected snapshots (epoch-000000.safetensors, …) in {self.folder}, found none; "
                "train with snapshots="
            )

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, place: int) -> nn.Module:  # type: ignore[override]
        return self.at(self.epochs[place])

    def __iter__(self) -> Iterator[nn.Module]:
        return (self.at(epoch) for epoch in self.epochs)

    def __repr__(self) -> str:
        return f"Snapshots({str(self.folder)!r}, epochs {', '.join(map(str, self.epochs))})"

    def at(self, epoch: int) -> nn.Module:
        """The net after some epoch, in eval mode.

        Raises
        ------
        ValueError
            If that epoch was not kept, its file is damaged, or it is of another net.
        """
        if epoch not in self.epochs:
            kept = ", ".join(map(str, self.epochs))
            raise ValueError(f"expected one of the epochs kept ({kept}), got {epoch}")
        path = self.folder / snapshot_name(epoch)
        try:
            state = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); train again") from error
        net = copy.deepcopy(self.model).eval()
        _require_same(path, net.state_dict(), state)
        # Copied into the net's own memory: arithmetic may depend on its alignment.
        net.load_state_dict(state)
        return net


def _require_same(path: Path, here: dict[str, Tensor], there: dict[str, Tensor]) -> None:
    for name in sorted(here.keys() | there.keys()):
        mine = tuple(here[name].shape) if name in here else "nothing"
        theirs = tuple(there[name].shape) if name in there else "nothing"
        if mine != theirs:
            raise ValueError(
                f"expected a snapshot of this net in {path}, but {name} is {theirs} there and "
                f"{mine} here; build the net that was trained"
            )


def snapshot_name(epoch: int) -> str:
    """The file of an epoch's snapshot."""
    return f"epoch-{epoch:06d}.safetensors"


def write_snapshot(folder: Path, epoch: int, model: nn.Module) -> None:
    """Write a net's state dict for :class:`Snapshots` to find."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    state = {name: value.contiguous() for name, value in state.items()}
    write_atomically(folder / snapshot_name(epoch), safetensors.torch.save(state))


def trajectory(snapshots: Snapshots, quantity: Callable[[nn.Module], Any]) -> Trajectory:
    """A quantity of the net after each epoch kept, by epoch.

    >>> import tempfile
    >>> folder, net = Path(tempfile.mkdtemp()), nn.Linear(1, 2, bias=False)
    >>> for epoch in (0, 5):
    ...     _ = nn.init.constant_(net.weight, float(epoch))
    ...     write_snapshot(folder, epoch, net)
    >>> trajectory(Snapshots(folder, net), lambda net: net.weight.sum().item())
    Trajectory(2 steps from 0 to 5, value: 0 to 10)
    """
    if not isinstance(snapshots, Snapshots):
        raise TypeError(
            f"expected deepspec.dynamics.Snapshots, got {shown(snapshots)}; open a folder of them "
            "with Snapshots(folder, net)"
        )
    if not callable(quantity) or isinstance(quantity, type):
        raise TypeError(f"expected quantity as a function of a net, got {shown(quantity)}")
    found = tuple(quantity(snapshots.at(epoch)) for epoch in snapshots.epochs)
    return Trajectory(steps=snapshots.epochs, found=found)
