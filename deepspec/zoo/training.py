"""Training as the papers train ([002] D.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn


@dataclass(frozen=True)
class Training:
    """How a net was trained and how it ended.

    ``losses[e]`` is the mean cross-entropy over epoch e, in nats; ``error_rate`` the share of
    training samples that the trained net gets wrong, in eval mode.
    """

    epochs: int
    learning_rate: float
    momentum: float
    weight_decay: float
    batch_size: int
    seed: int
    losses: tuple[float, ...]
    error_rate: float


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
    seed: int = 0,
) -> Training:
    """Train a model in place and leave it in eval mode.

    SGD with momentum 0.9 and weight decay 5e-4 on all parameters, batches of 128 in a new order
    every epoch, the learning rate cut by 10 after 1/3 and 2/3 of the epochs ([002] D.1).

    Raises
    ------
    ValueError
        If there are fewer than 3 epochs, or no samples.
    FloatingPointError
        If the loss is no longer finite.
    """
    if epochs < 3 or len(labels) == 0:
        raise ValueError(f"expected at least 3 epochs and 1 sample, got {epochs} and {len(labels)}")
    optimiser = torch.optim.SGD(
        model.parameters(), learning_rate, momentum=momentum, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [epochs // 3, 2 * epochs // 3])
    shuffle = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=(console := Console(stderr=True)),
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("training", total=epochs, loss="")
        for epoch in range(epochs):
            losses.append(_epoch(model, optimiser, inputs, labels, batch_size, shuffle))
            schedule.step()
            if not torch.isfinite(torch.tensor(losses[-1])):
                raise FloatingPointError(
                    f"the loss is {losses[-1]} after epoch {epoch + 1}; lower the learning rate "
                    f"({learning_rate})"
                )
            bar.update(task, advance=1, loss=f"{losses[-1]:.2e}")
    model.eval()
    with torch.no_grad():
        wrong = model(inputs).argmax(dim=1) != labels
    return Training(
        epochs,
        learning_rate,
        momentum,
        weight_decay,
        batch_size,
        seed,
        tuple(losses),
        float(wrong.double().mean()),
    )


def _epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    batch_size: int,
    shuffle: torch.Generator,
) -> float:
    """One pass in a new order; a last batch of one sample would break batch normalisation."""
    model.train()
    total = 0.0
    order = torch.randperm(len(labels), generator=shuffle).to(labels.device)
    for chosen in order.split(batch_size):
        if len(chosen) == 1 and len(labels) > 1:
            continue
        optimiser.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        loss.backward()
        optimiser.step()
        total += float(loss.detach()) * len(chosen)
    return total / len(labels)
