"""A training under way: one epoch after another, and all that the next one depends on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn


class Run:
    """A training under way: everything that its next epoch depends on."""

    def __init__(
        self, model: nn.Module, rate: float, momentum: float, decay: float, seed: int
    ) -> None:
        self.model = model
        self.optimiser = torch.optim.SGD(
            model.parameters(), rate, momentum=momentum, weight_decay=decay
        )
        self.shuffle = torch.Generator().manual_seed(seed)
        self.losses: list[float] = []
        self.errors: list[float] = []
        self.test_errors: list[float] = []

    def remaining(self, epochs: int, show_progress: bool = True) -> Iterator[int]:
        """The epochs done, from where the run stands to the last, with a bar on a terminal."""
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=(console := Console(stderr=True)),
            transient=True,
            disable=not (show_progress and console.is_terminal),
        ) as bar:
            task = bar.add_task("training", total=epochs, loss="")
            for done in range(len(self.losses), epochs + 1):
                loss = f"{self.losses[-1]:.2e}" if self.losses else ""
                bar.update(task, completed=done, loss=loss)
                yield done

    def epoch(
        self,
        inputs: Tensor,
        labels: Tensor,
        batch_size: int,
        rate: float,
        test: tuple[Tensor, Tensor] | None,
    ) -> None:
        """One pass in a new order; a last batch of one sample would break batch normalisation."""
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        total, wrong = 0.0, torch.zeros((), dtype=torch.long, device=labels.device)
        order = torch.randperm(len(labels), generator=self.shuffle).to(labels.device)
        for chosen in order.split(batch_size):
            if len(chosen) == 1 and len(labels) > 1:
                continue
            self.optimiser.zero_grad(set_to_none=True)
            logits = logits_of(self.model, inputs[chosen])
            loss = nn.functional.cross_entropy(logits, labels[chosen])
            loss.backward()
            self.optimiser.step()
            total += float(loss.detach()) * len(chosen)
            wrong += (logits.detach().argmax(dim=1) != labels[chosen]).sum()
        self.losses.append(total / len(labels))
        self.errors.append(int(wrong) / len(labels))
        if test is not None:
            self.test_errors.append(error_rate(self.model.eval(), *test))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What :meth:`restore` needs: JSON and arrays."""
        arrays = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for place, parameter in enumerate(self.model.parameters()):
            buffer = self.optimiser.state[parameter].get("momentum_buffer")
            if buffer is not None:
                arrays[f"momentum.{place}"] = buffer
        arrays["shuffle"] = self.shuffle.get_state()
        arrays["generator.cpu"] = torch.get_rng_state()
        for device in cuda_devices(self.model):
            arrays[f"generator.{device}"] = torch.cuda.get_rng_state(device)
        progress = {
            "losses": self.losses,
            "errors": self.errors,
            "test_errors": self.test_errors,
        }
        return progress, arrays

    def restore(self, progress: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        """Stand where a run stood when it was saved."""
        for name in ("losses", "errors", "test_errors"):
            setattr(self, name, [float(value) for value in progress[name]])
        self.model.load_state_dict({name: arrays[f"model.{name}"] for name in self._names()})
        for place, parameter in enumerate(self.model.parameters()):
            if f"momentum.{place}" in arrays:
                buffer = torch.empty_like(parameter).copy_(arrays[f"momentum.{place}"])
                self.optimiser.state[parameter]["momentum_buffer"] = buffer.detach()
        self.shuffle.set_state(arrays["shuffle"])
        torch.set_rng_state(arrays["generator.cpu"])
        for device in cuda_devices(self.model):
            if f"generator.{device}" in arrays:
                torch.cuda.set_rng_state(arrays[f"generator.{device}"], device)

    def _names(self) -> list[str]:
        return list(self.model.state_dict())


def logits_of(model: nn.Module, inputs: Tensor) -> Float[Tensor, "b C"]:
    """A model's logits, by themselves or as ``output.logits``."""
    output = model(inputs)
    return getattr(output, "logits", output)


def error_rate(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """The share of samples that a model gets wrong, a thousand at a time, in its present mode."""
    with torch.no_grad():
        parts = zip(inputs.split(1024), labels.split(1024), strict=True)
        wrong = [logits_of(model, x).argmax(dim=1) != y for x, y in parts]
    return float(torch.cat(wrong).double().mean())


def cuda_devices(model: nn.Module) -> list[int]:
    """The CUDA devices that a model lies on."""
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


@contextmanager
def own_randomness(model: nn.Module, seed: int) -> Iterator[None]:
    """Dropout and its like draw from the run's seed; the caller's generators are put back."""
    with torch.random.fork_rng(devices=cuda_devices(model)):
        torch.manual_seed(seed)
        yield
