"""What stands between Jᵀ and J: kernels that act on logits, by how much of these they must see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

#: Gives the logits of the rows at hand, for kernels that are made of them.
Outputs = Callable[[], Float[Tensor, "b C"]]
#: Acts on each row's logits alone.
RowKernel = Callable[[Float[Tensor, "b C k"], slice, Outputs], Float[Tensor, "b C k"]]
#: Acts on all rows at once.
Kernel = Callable[[Float[Tensor, "n C k"]], Float[Tensor, "n C k"]]
#: Made row by row, in place of a kernel's image.
RowVector = Callable[[slice, Outputs], Float[Tensor, "b C"]]


class Streamed(Protocol):
    """A kernel that couples rows by few sums; see :class:`deepspec.operators.pullback`."""

    @property
    def wants_columns(self) -> bool: ...

    def gather(self, columns: Tensor, rows: slice, outputs: Outputs) -> Tensor: ...

    def spread(
        self, gathered: Tensor, columns: Tensor | None, rows: slice, outputs: Outputs
    ) -> Tensor: ...
