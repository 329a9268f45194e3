"""A :class:`~deepspec.dynamics.Recorder` in Lightning, Transformers and TensorBoard."""

from __future__ import annotations

import importlib
from typing import Any

from deepspec.dynamics.recorder import Log, Recorder


def lightning_callback(recorder: Recorder) -> Any:
    """A Lightning callback that records after every training batch.

    Use as ``Trainer(callbacks=[lightning_callback(recorder)])``.
    """
    base = _imported("lightning.pytorch", "pytorch_lightning").Callback

    class RecorderCallback(base):  # type: ignore[misc, valid-type]
        def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
            recorder.record(trainer.global_step)

    return RecorderCallback()


def trainer_callback(recorder: Recorder) -> Any:
    """A ``TrainerCallback`` of Hugging Face's Transformers that records after every step.

    Use as ``Trainer(callbacks=[trainer_callback(recorder)])``.
    """
    base = _imported("transformers").TrainerCallback

    class RecorderCallback(base):  # type: ignore[misc, valid-type]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recorder.record(state.global_step)

    return RecorderCallback()


def tensorboard_log(writer: Any, prefix: str = "deepspec/") -> Log:
    """A ``log=`` for :class:`Recorder` that adds each number to a ``SummaryWriter``."""

    def log(row: dict[str, Any], step: int) -> None:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                writer.add_scalar(prefix + name, value, step)

    return log


def _imported(*names: str) -> Any:
    """The first of some modules that is installed."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ValueError(
        f"expected {' or '.join(names)} to be installed, found none; pip install "
        f"{names[0].partition('.')[0]}"
    )
