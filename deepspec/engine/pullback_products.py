"""JᵀKJ V over all batches, in as few passes as the kernel K allows and the memory has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.engine.autodiff import HeldJacobian, JacobianProducts
from deepspec.engine.distributed import Group
from deepspec.engine.jacobian_batches import JacobianBatches
from deepspec.engine.kernels import Kernel, Outputs, RowKernel, RowVector, Streamed

# A batch's logits beyond WHOLE_BYTES in float64 are worked on in pieces that stay near the caches.
WHOLE_BYTES, PIECE_BYTES = 2**24, 2**23


class PullbackProducts:
    """Products with JᵀKJ, and with Jᵀ of a vector that is made of the logits.

    Parameters
    ----------
    jacobians
        J of each batch.
    group
        The ranks that have them.
    dtype
        Of the vectors.
    logit_memory
        Bytes that arrays of rows × logits in float64 may take at a time; None where they are
        small, and all of a batch is worked on at once.
    """

    def __init__(
        self,
        jacobians: JacobianBatches,
        group: Group,
        dtype: torch.dtype,
        logit_memory: int | None,
    ) -> None:
        self._jacobians, self._group = jacobians, group
        self._dtype, self._logit_memory = dtype, logit_memory

    def per_sample(self, kernel: RowKernel, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        """JᵀKJ V for a kernel that acts on each sample's logits alone: one pass over the data."""

        def add(rows: slice, batch: JacobianProducts, result: Float[Tensor, "k p"]) -> None:
            if self._are_few(rows):
                pushed = kernel(self._jacobians.jvp(batch, columns), rows, batch.outputs)
                self._jacobians.vjp(batch, pushed, result)
                return
            for column, into in zip(columns.T, result, strict=True):
                batch.vjp(self._in_pieces(batch, kernel, column.contiguous(), rows), into)

        return self._jacobians.summed(columns.shape[1], self._jobs(add))

    def _in_pieces(
        self, batch: JacobianProducts, kernel: RowKernel, column: Float[Tensor, " p"], rows: slice
    ) -> Float[Tensor, "b C"]:
        """K J v of a batch in place of J v, float64 for a few rows at a time only."""
        pushed = batch.jvp(column)
        shared = pushed.untyped_storage().data_ptr() == column.untyped_storage().data_ptr()
        if shared or not pushed.is_contiguous():  # an output that is a parameter as it is
            pushed = pushed.clone(memory_format=torch.contiguous_format)
        for part, place, outputs in self._pieces(batch, rows):
            image = kernel(pushed[part, :, None].double(), place, outputs)
            pushed[part] = image[:, :, 0].to(pushed.dtype)
        return pushed

    def streamed(self, kernel: Streamed, column: Float[Tensor, " p"]) -> Float[Tensor, "p 1"]:
        """JᵀKJ v in two passes: sums over all rows first, then what they make of each row.

        Nothing of the size of rows × logits is held but that of one batch.
        """
        found: list[Tensor] = []
        for rows, batch in self._jacobians:
            pushed = batch.jvp(column)
            for part, place, outputs in self._pieces(batch, rows):
                found.append(kernel.gather(pushed[part, :, None].double(), place, outputs))
        # Every rank adds all of them, in the order of the rows.
        every = self._group.joined(torch.stack(found) if found else None)
        sums = every[0].clone()
        for one in every[1:]:
            sums = sums + one

        def add(rows: slice, batch: JacobianProducts, into: Float[Tensor, "1 p"]) -> None:
            again = batch.jvp(column) if kernel.wants_columns else None
            image = torch.empty_like(batch.outputs())
            for part, place, outputs in self._pieces(batch, rows):
                given = None if again is None else again[part, :, None].double()
                image[part] = kernel.spread(sums, given, place, outputs)[:, :, 0].to(image.dtype)
            batch.vjp(image, into[0])

        return self._jacobians.summed(1, self._jobs(add))

    def of_rows(self, coefficients: RowVector) -> Float[Tensor, " p"]:
        """Jᵀ r for an r that is made a few rows at a time, from the logits if need be."""

        def add(rows: slice, batch: JacobianProducts, into: Float[Tensor, "1 p"]) -> None:
            parts = [
                coefficients(place, outputs).to(self._dtype)
                for _, place, outputs in self._pieces(batch, rows)
            ]
            self._jacobians.vjp(batch, torch.cat(parts)[:, :, None], into)

        return self._jacobians.summed(1, self._jobs(add))[:, 0]

    def whole(self, kernel: Kernel, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        """JᵀKJ V for any kernel: J V of all batches first, then Jᵀ.

        Batches that are held, and the last one, need no second forward pass.
        """
        jacobians = self._jacobians
        pushed: list[Tensor] = []
        ready: list[tuple[slice, JacobianProducts]] = []
        for rows, batch in jacobians:
            if ready and not isinstance(ready[-1][1], HeldJacobian):
                ready.pop()
            pushed.append(jacobians.jvp(batch, columns))
            ready.append((rows, batch))
        coefficients = kernel(jacobians.joined(pushed, columns))
        if len(ready) == len(pushed):
            jobs = (partial(jacobians.vjp, batch, coefficients[rows]) for rows, batch in ready)
            return jacobians.summed(columns.shape[1], jobs)
        # The last one goes first, or its graph would stand beside the others', and is added last.
        rows, last = ready.pop()
        late, end = jacobians.zeros(columns.shape[1]), rows.start
        if not isinstance(last, HeldJacobian):
            jacobians.vjp(last, coefficients[rows], late)
        del last, ready

        def again() -> Iterator[Callable[[Tensor], object]]:
            for rows, batch in jacobians:
                if rows.start == end and not isinstance(batch, HeldJacobian):
                    yield lambda into: into.add_(late)
                else:
                    yield partial(jacobians.vjp, batch, coefficients[rows])

        return jacobians.summed(columns.shape[1], again())

    def _jobs(
        self, add: Callable[[slice, JacobianProducts, Tensor], None]
    ) -> Iterator[Callable[[Tensor], object]]:
        return (partial(add, rows, batch) for rows, batch in self._jacobians)

    # ---- a batch's rows, a few at a time ----------------------------------------------------

    def _are_few(self, rows: slice) -> bool:
        """Whether a batch's logits are worked on at once."""
        logits = 8 * (rows.stop - rows.start) * self._jacobians.num_classes
        return self._logit_memory is None and logits <= WHOLE_BYTES

    def _pieces(
        self, batch: JacobianProducts, rows: slice
    ) -> Iterator[tuple[slice, slice, Outputs]]:
        """As many rows at a time as memory allows: numbers in the batch, among all, and logits."""
        memory = PIECE_BYTES if self._logit_memory is None else self._logit_memory
        # In float64: the columns, their image, probabilities and what lies between.
        few = max(1, min(memory, PIECE_BYTES) // (32 * self._jacobians.num_classes))
        count = rows.stop - rows.start
        for start in range(0, count, few):
            stop = min(start + few, count)
            place = slice(rows.start + start, rows.start + stop)
            part = slice(start, stop)
            yield part, place, partial(_outputs, batch, part)


def _outputs(batch: JacobianProducts, rows: slice) -> Float[Tensor, "b C"]:
    """The logits of some rows of a batch."""
    return batch.outputs()[rows]
