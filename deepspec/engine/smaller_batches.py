"""A product that runs out of the GPU's memory is computed once more, with smaller batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from deepspec.classifier.precision import refuse_autocast
from deepspec.engine.distributed import Group

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Halving(Protocol):
    """What goes through the data in batches that can be made smaller."""

    group: Group
    device: torch.device

    def halve_batches(self) -> bool:
        """Drop everything held and halve the batches; false if that is impossible."""
        ...


Batched = TypeVar("Batched", bound=Halving)


def with_smaller_batches(
    method: Callable[Concatenate[Batched, Arguments], Result],
) -> Callable[Concatenate[Batched, Arguments], Result]:
    """When the GPU's memory runs out: half the batch and once more, with a warning."""

    @wraps(method)
    def retry(self: Batched, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        while True:
            try:
                # Evaluation code often stands under no_grad; products need the graph.
                refuse_autocast(self.device)
                with torch.inference_mode(False), torch.enable_grad():
                    return method(self, *args, **kwargs)
            except torch.OutOfMemoryError as error:
                if not self.group.alone:  # the others cannot follow
                    raise torch.OutOfMemoryError(
                        f"{error}; of several processes none can go on with smaller batches by "
                        "itself: pass a smaller batch_size or memory_budget"
                    ) from error
                if not self.halve_batches():
                    raise

    return retry
