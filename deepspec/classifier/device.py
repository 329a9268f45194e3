"""Where to compute: a device that is there, and that has float64."""

from __future__ import annotations

import torch


def available_device(
    device: torch.device | str | int | None, default: torch.device
) -> torch.device:
    """The device, with its index, once it is known to work.

    Raises
    ------
    ValueError
        If there is no such device here, it holds no numbers (meta), or it has no float64, in
        which logits, probabilities and sums are kept whatever the precision of the model.

    >>> available_device("cpu", torch.device("cpu"))
    device(type='cpu')
    """
    wanted = default if device is None else device
    if device is None and default.type == "meta":
        raise ValueError(
            "expected a model with weights, but its parameters are on the meta device, which "
            "holds no numbers; load its weights onto cpu or a GPU first"
        )
    try:
        found = torch.empty(0, device=wanted).device
    # Each backend has its own way to say that it is not there.
    except (RuntimeError, AssertionError, TypeError, ValueError, ImportError) as error:
        raise ValueError(_unavailable(wanted)) from error
    if found.type == "meta":
        raise ValueError(_unavailable(wanted))
    try:
        torch.zeros(1, dtype=torch.float64, device=found)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"expected a device with float64, in which logits and sums are kept, but {found.type} "
            "has none; pass device='cpu'"
        ) from error
    return found


def _unavailable(wanted: object) -> str:
    return (
        f"expected a device that is available, got {str(wanted)!r}; this machine has "
        + ", ".join(_present())
    )


def _present() -> list[str]:
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps (without float64)"] if torch.backends.mps.is_available() else []
    return ["cpu", *gpus, *mps]
