"""Training as the papers train (Papyan 2020, D.1), with snapshots; resumed after a kill."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deepspec.dynamics.snapshots import snapshot_epochs, write_snapshot
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.checkpoint import Checkpoint, write_atomically
from deepspec.zoo.run import Run, error_rate, own_randomness

Schedule = Literal["step", "cosine", "constant"]
STATE, SNAPSHOTS, RESULT = "state", "snapshots", "training.json"


class Diverged(FloatingPointError):
    """A training whose loss was no longer finite after some epoch."""

    def __init__(self, epoch: int, loss: float, learning_rate: float) -> None:
        super().__init__(
            f"diverged at epoch {epoch}: the loss is {loss}; lower the learning rate "
            f"({learning_rate})"
        )
        self.epoch = epoch


@dataclass(frozen=True, repr=False)
class Training:
    """How a net was trained and how it ended.

    ``losses[e]`` is the mean cross-entropy over epoch e, in nats, and ``errors[e]`` the share of
    samples that were wrong, both as the batches went by; ``test_errors[e]`` that of held-out
    samples after it, where there were any; ``error_rate`` the share of training samples that the
    trained net gets wrong, in eval mode.
    """

    epochs: int
    learning_rate: float
    momentum: float
    weight_decay: float
    batch_size: int
    seed: int
    losses: tuple[float, ...]
    error_rate: float
    schedule: Schedule = "step"
    errors: tuple[float, ...] = ()
    test_errors: tuple[float, ...] = ()

    def __repr__(self) -> str:
        loss = f"loss {self.losses[0]:.3g} to {self.losses[-1]:.3g}" if self.losses else "no loss"
        return f"Training({self.epochs} epochs, {loss}, {self.error_rate:.2%} of samples wrong)"

    @classmethod
    def load(cls, folder: str | Path) -> Training:
        """What :func:`train` left in a run's folder when it was done.

        Raises
        ------
        FileNotFoundError
            If there is none: not a run, or not done.
        """
        path = Path(folder) / RESULT
        if not path.is_file():
            raise FileNotFoundError(f"expected a finished training at {path}, found none")
        entries: dict[str, Any] = json.loads(path.read_text())
        for name in ("losses", "errors", "test_errors"):
            entries[name] = tuple(entries[name])
        return cls(**entries)


def train(
    model: nn.Module,
    inputs: Float[Tensor, "n ..."],
    labels: Int[Tensor, " n"],
    *,
    epochs: int = 60,
    learning_rate: float = 0.05,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 128,
    schedule: Schedule = "step",
    seed: Seed = 0,
    test: tuple[Tensor, Tensor] | None = None,
    folder: str | Path | None = None,
    snapshots: str | Iterable[int] = (),
    save_every: float = 30.0,
    show_progress: bool = True,
) -> Training:
    """Train a model in place and leave it in eval mode.

    SGD with momentum 0.9 and weight decay 5e-4 on all parameters, batches of 128 in a new order
    every epoch, the learning rate cut by 10 after 1/3 and 2/3 of the epochs (Papyan 2020, D.1).

    Parameters
    ----------
    schedule
        ``"step"`` as above, ``"cosine"`` (half a period, to zero), ``"constant"``.
    seed
        Of the order, and of anything random in the model; the global generators are left alone.
    test
        Held-out samples, whose error is recorded after every epoch.
    folder
        Where the run lives. A run that was killed there goes on when the same call is made
        again, and ends with the same bits; one that is done is read. It holds ``snapshots/``,
        ``state/`` and, when done, ``training.json``.
    snapshots
        The epochs after which weights are kept, as for
        :func:`~deepspec.dynamics.snapshot_epochs`; read them with
        :class:`~deepspec.dynamics.Snapshots`.
    save_every
        Seconds between two saves of the state that a run goes on from.
    show_progress
        A bar on stderr, where that is a terminal.

    Raises
    ------
    ValueError
        If there are fewer than 3 epochs, or no samples, the schedule is unknown, or snapshots
        are wanted and no folder is given.
    Diverged
        If the loss is no longer finite; its ``epoch`` says when.
    CheckpointMismatch
        If the folder holds another run: other settings, data or starting weights.
    """
    if epochs < 3 or len(labels) == 0:
        raise ValueError(f"expected at least 3 epochs and 1 sample, got {epochs} and {len(labels)}")
    if schedule not in ("step", "cosine", "constant"):
        raise ValueError(f'expected schedule "step", "cosine" or "constant", got {schedule!r}')
    kept = snapshot_epochs(snapshots, epochs)
    if kept and folder is None:
        raise ValueError("expected a folder for the snapshots, got none; pass folder=")
    chosen = whole_seed(seed)
    settings: dict[str, Any] = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "batch_size": batch_size,
        "schedule": schedule,
        "seed": chosen,
    }
    run = Run(model, learning_rate, momentum, weight_decay, chosen)
    store = None
    with own_randomness(model, chosen):
        if folder is not None:
            store = Checkpoint(
                Path(folder) / STATE,
                save_every,
                {
                    **settings,
                    "snapshots": list(kept),
                    "model": _digest(model.state_dict()),
                    "data": _digest({"x": inputs, "y": labels}),
                    "test": None if test is None else _digest({"x": test[0], "y": test[1]}),
                },
            )
            saved = store.load()
            if saved is not None:
                run.restore(*saved)
        for epoch in run.remaining(epochs, show_progress):
            if folder is not None and epoch in kept:
                write_snapshot(Path(folder) / SNAPSHOTS, epoch, model)
            if store is not None and epoch:
                # After the snapshot: a run that goes on from here would not write it again.
                store.save(*run.state()) if epoch == epochs else store.offer(run.state)
            if epoch < epochs:
                rate = learning_rate_at(schedule, learning_rate, epoch, epochs)
                run.epoch(inputs, labels, batch_size, rate, test)
                if not math.isfinite(run.losses[-1]):
                    raise Diverged(epoch + 1, run.losses[-1], learning_rate)
    model.eval()
    done = Training(
        **settings,
        losses=tuple(run.losses),
        error_rate=error_rate(model, inputs, labels),
        errors=tuple(run.errors),
        test_errors=tuple(run.test_errors),
    )
    if folder is not None:
        content = json.dumps(dataclasses.asdict(done), indent=1).encode()
        write_atomically(Path(folder) / RESULT, content)
    return done


def learning_rate_at(schedule: Schedule, initial: float, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, the first being 0.

    >>> [round(learning_rate_at("step", 1.0, epoch, 6), 3) for epoch in range(6)]
    [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    >>> [round(learning_rate_at("cosine", 1.0, epoch, 2), 3) for epoch in range(2)]
    [1.0, 0.5]
    """
    if schedule == "cosine":
        return initial * (1 + math.cos(math.pi * epoch / epochs)) / 2
    cuts = (epochs // 3, 2 * epochs // 3) if schedule == "step" else ()
    for cut in cuts:
        initial *= 0.1 if epoch >= cut else 1.0
    return initial


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
