"""Products J V, Jᵀ R, JᵀKJ V and ∇²φ V over all batches, as fast as the memory allows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial, wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.engine.autodiff import HeldJacobian, JacobianProducts
from deepspec.engine.autotune import Autotuner
from deepspec.engine.cache import BatchCache
from deepspec.engine.cached_products import LogitGradients, hessian_purpose, jacobian_purpose
from deepspec.engine.plan import accepted, identity

# A batch's logits beyond WHOLE_BYTES in float64 are worked on in pieces that stay near the caches.
WHOLE_BYTES, PIECE_BYTES = 2**24, 2**23
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Outputs = Callable[[], Float[Tensor, "b C"]]
RowKernel = Callable[[Float[Tensor, "b C k"], slice, Outputs], Float[Tensor, "b C k"]]


class Streamed(Protocol):
    """A kernel that couples rows by few sums; see :class:`deepspec.operators.pullback`."""

    @property
    def wants_columns(self) -> bool: ...

    def gather(self, columns: Tensor, rows: slice, outputs: Outputs) -> Tensor: ...

    def spread(
        self, gathered: Tensor, columns: Tensor | None, rows: slice, outputs: Outputs
    ) -> Tensor: ...


RowVector = Callable[[slice, Outputs], Float[Tensor, "b C"]]
Kernel = Callable[[Float[Tensor, "n C k"]], Float[Tensor, "n C k"]]


def refuse_autocast(device: torch.device) -> None:
    """Under autocast, matrices would be multiplied in half precision behind everyone's back.

    Raises
    ------
    RuntimeError
        If it is on.
    """
    if torch.is_autocast_enabled(device.type):
        raise RuntimeError(
            f"expected full precision, but torch.autocast is on for {device.type}: products would "
            "be of half precision; leave its block, or set enabled=False in it"
        )


def _with_smaller_batches(
    method: Callable[Concatenate[Engine, Arguments], Result],
) -> Callable[Concatenate[Engine, Arguments], Result]:
    """When the GPU's memory runs out: half the batch and once more, with a warning."""

    @wraps(method)
    def retry(self: Engine, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        while True:
            try:
                # Evaluation code often stands under no_grad; products need the graph.
                refuse_autocast(self.device)
                with torch.inference_mode(False), torch.enable_grad():
                    return method(self, *args, **kwargs)
            except torch.OutOfMemoryError:
                if not self.halve_batches():
                    raise

    return retry


class Engine:
    """Differentiates the logits of all samples, batch after batch.

    Parameters
    ----------
    functions
        Starts a pass over the data: yields each batch's rows and its function.
    space
        The parameters to differentiate by.
    num_classes
        The number of logits.
    dtype, device
        Of the vectors.
    memory_budget
        Bytes, or a share of the free memory, that batches may hold between products.
    halve
        Halves the batches; returns false if they hold a single sample already.
    logit_memory
        Bytes that arrays of rows × logits in float64 may take at a time; None where they are
        small, and all of a batch is worked on at once.
    epsilon
        The relative rounding of what the model computes.
    """

    def __init__(
        self,
        functions: Callable[[], Iterator[tuple[slice, LogitFunction]]],
        space: ParameterSpace,
        num_classes: int,
        dtype: torch.dtype,
        device: torch.device,
        memory_budget: int | float,
        halve: Callable[[], bool],
        epsilon: float,
        logit_memory: int | None = None,
    ) -> None:
        self._functions = functions
        self.space, self.dtype, self.device = space, dtype, device
        self._halve, self._num_classes, self._logit_memory = halve, num_classes, logit_memory
        _, function = next(functions())
        self._identity = identity(function.model, space, num_classes, dtype)
        self.autotuner = Autotuner(epsilon**0.5)
        self.autotuner.plan.update(self._identity)
        self.cache = BatchCache(functions, self.autotuner.plan, memory_budget, device)
        #: Columns multiplied so far, by kind of product.
        self.spent: Counter[str] = Counter()
        self._jacobian = jacobian_purpose(self.autotuner, num_classes, self.cache.budget_bytes)

    # ---- products ---------------------------------------------------------------------------

    @_with_smaller_batches
    def jvp(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "n C k"]:
        """J V in float64: the change of all logits along each column."""
        self.spent["jvp"] += columns.shape[1]
        return torch.cat([self._jvp(batch, columns) for _, batch in self._batches()])

    @_with_smaller_batches
    def vjp(self, coefficients: Float[Tensor, "n C k"]) -> Float[Tensor, "p k"]:
        """Jᵀ R: the gradient of ⟨R_k, f⟩ for each k."""
        self.spent["vjp"] += coefficients.shape[2]
        result = self._zeros(coefficients.shape[2])
        for rows, batch in self._batches():
            self._vjp(batch, coefficients[rows], result)
        return result.T

    @_with_smaller_batches
    def per_sample_pullback_product(
        self, kernel: RowKernel, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V for a kernel that acts on each sample's logits alone: one pass over the data."""
        self.spent["pullback"] += columns.shape[1]
        result = self._zeros(columns.shape[1])
        for rows, batch in self._batches():
            if self._logit_memory is None and self._bytes(rows) <= WHOLE_BYTES:
                pushed = kernel(self._jvp(batch, columns), rows, batch.outputs)
                self._vjp(batch, pushed, result)
                continue
            for column, into in zip(columns.T, result, strict=True):
                batch.vjp(self._in_pieces(batch, kernel, column.contiguous(), rows), into)
        return result.T

    def _in_pieces(
        self, batch: JacobianProducts, kernel: RowKernel, column: Float[Tensor, " p"], rows: slice
    ) -> Float[Tensor, "b C"]:
        """K J v of a batch in place of J v, float64 for a few rows at a time only."""
        pushed = batch.jvp(column)
        shared = pushed.untyped_storage().data_ptr() == column.untyped_storage().data_ptr()
        if shared or not pushed.is_contiguous():  # an output that is a parameter as it is
            pushed = pushed.clone(memory_format=torch.contiguous_format)
        for part, place in self._places(rows):
            image = kernel(pushed[part, :, None].double(), place, partial(_outputs, batch, part))
            pushed[part] = image[:, :, 0].to(pushed.dtype)
        return pushed

    def _pieces(self, rows: int) -> Iterator[slice]:
        """Rows, as many at a time as the memory for logits allows."""
        memory = PIECE_BYTES if self._logit_memory is None else self._logit_memory
        # In float64: the columns, their image, probabilities and what lies between.
        few = max(1, min(memory, PIECE_BYTES) // (32 * self._num_classes))
        for start in range(0, rows, max(few, 1)):
            yield slice(start, min(start + few, rows))

    @_with_smaller_batches
    def streamed_pullback_product(
        self, kernel: Streamed, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V in two passes: sums over all rows first, then what they make of each row.

        Nothing of the size of rows × logits is held but that of one batch.
        """
        self.spent["pullback"] += columns.shape[1]
        result = self._zeros(columns.shape[1])
        for column, into in zip(columns.T.contiguous(), result, strict=True):
            sums: Tensor | None = None
            for rows, batch in self._batches():
                pushed = batch.jvp(column)
                for part, place in self._places(rows):
                    few = pushed[part, :, None].double()
                    found = kernel.gather(few, place, partial(_outputs, batch, part))
                    sums = found if sums is None else sums + found
            assert sums is not None
            for rows, batch in self._batches():
                again = batch.jvp(column) if kernel.wants_columns else None
                image = torch.empty_like(batch.outputs())
                for part, place in self._places(rows):
                    given = None if again is None else again[part, :, None].double()
                    found = kernel.spread(sums, given, place, partial(_outputs, batch, part))
                    image[part] = found[:, :, 0].to(image.dtype)
                batch.vjp(image, into)
        return result.T

    def _bytes(self, rows: slice) -> int:
        """Of a batch's logits in float64."""
        return 8 * (rows.stop - rows.start) * self._num_classes

    def _places(self, rows: slice) -> Iterator[tuple[slice, slice]]:
        """A batch's rows in pieces: their numbers in the batch, and among all."""
        for part in self._pieces(rows.stop - rows.start):
            yield part, slice(rows.start + part.start, rows.start + part.stop)

    @_with_smaller_batches
    def pull(self, coefficients: RowVector) -> Float[Tensor, " p"]:
        """Jᵀ r for an r that is made batch by batch, from the logits if need be."""
        self.spent["vjp"] += 1
        result = self._zeros(1)
        for rows, batch in self._batches():
            parts = []
            for part, place in self._places(rows):
                found = coefficients(place, partial(_outputs, batch, part))
                parts.append(found.to(self.dtype))
            self._vjp(batch, torch.cat(parts)[:, :, None], result)
        return result[0]

    @_with_smaller_batches
    def pullback_product(
        self, kernel: Kernel, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V for any kernel: J V of all batches first, then Jᵀ.

        Batches that are held, and the last one, need no second forward pass.
        """
        self.spent["pullback"] += columns.shape[1]
        pushed: list[Tensor] = []
        ready: list[tuple[slice, JacobianProducts]] = []
        for rows, batch in self._batches():
            if ready and not isinstance(ready[-1][1], HeldJacobian):
                ready.pop()
            pushed.append(self._jvp(batch, columns))
            ready.append((rows, batch))
        coefficients = kernel(torch.cat(pushed))
        result = self._zeros(columns.shape[1])
        done = {rows.start for rows, _ in ready}
        while ready:
            rows, batch = ready.pop()
            self._vjp(batch, coefficients[rows], result)
        del batch
        if len(done) < len(pushed):
            for rows, batch in self._batches():
                if rows.start not in done:
                    self._vjp(batch, coefficients[rows], result)
        return result.T

    @_with_smaller_batches
    def hvp(
        self, kind: str, gradients: LogitGradients, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """Σ_b ∇²φ_b V, ``gradients(rows, function)`` giving ∂φ_b/∂(logits) by the logits.

        ``kind`` names φ, so that what :meth:`reserve_hessian` keeps for it is found again.
        """
        self.spent["hvp"] += columns.shape[1]
        result = self._zeros(columns.shape[1])
        held = self.cache.batches(hessian_purpose(self.autotuner, kind, gradients))
        for index, (rows, function) in enumerate(self._functions()):
            if index < len(held):
                product = held[index].product
            else:
                gradient = gradients(rows, function)
                nesting = self.autotuner.nesting(function, gradient)
                product = nesting(function, gradient).product
            for column, into in zip(columns.T, result, strict=True):
                product(column.contiguous(), into)
        return result.T

    # ---- what is kept between products ------------------------------------------------------

    @_with_smaller_batches
    def reserve_jacobian(self, products: int) -> None:
        """Hold as many batches as the budget allows, if so many products with J pay for it."""
        self.cache.reserve(self._jacobian, products)

    @_with_smaller_batches
    def reserve_hessian(self, kind: str, gradients: LogitGradients, products: int) -> None:
        """Hold as many batches as the budget allows, if so many products with ∇²φ pay for it."""
        self.cache.reserve(hessian_purpose(self.autotuner, kind, gradients), products)

    def follow(self, plan: Mapping[str, str | int]) -> None:
        """Forget everything that is held, and make the choices of ``plan``.

        Raises
        ------
        ValueError
            If it is of another net, or no plan there can be; see :mod:`.plan`.
        """
        self._decide_as(accepted(plan, self._identity))

    def _decide_as(self, choices: Mapping[str, str | int]) -> None:
        self.cache.follow({**self._identity, **choices})

    def halve_batches(self) -> bool:
        """Drop everything held and halve the batches; false if that is impossible."""
        known = self.autotuner.plan.get("forward mode")
        self._decide_as({} if known is None else {"forward mode": known})
        if not self._halve():
            return False
        warnings.warn(
            "out of GPU memory: going on with batches of half the size; pass a smaller "
            "batch_size or memory_budget to avoid the detour",
            ResourceWarning,
            stacklevel=3,
        )
        return True

    def check(self) -> None:
        """Find out, at the first call, how the model can be differentiated, and rightly."""
        self.autotuner.route(function for _, function in self._functions())

    # ---- one batch --------------------------------------------------------------------------

    def _batches(self) -> Iterator[tuple[slice, JacobianProducts]]:
        held = self.cache.batches(self._jacobian)
        for index, (rows, function) in enumerate(self._functions()):
            if index < len(held):
                yield rows, held[index]
            else:
                yield rows, self.autotuner.transient(function)(function)

    def _jvp(
        self, batch: JacobianProducts, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "b C k"]:
        parts = []
        for few in columns.split(self._columns_at_once(batch, columns.shape[1]), dim=1):
            one = few.shape[1] == 1
            parts.append(batch.jvp_one_by_one(few) if one else batch.jvp_together(few))
        return torch.cat(parts, dim=2).double()

    def _vjp(
        self, batch: JacobianProducts, coefficients: Float[Tensor, "b C k"], result: Tensor
    ) -> None:
        count = coefficients.shape[2]
        at_once = self._columns_at_once(batch, count) if batch.pulls_together else count
        rows = coefficients.to(self.dtype).split(at_once, dim=2)
        for few, into in zip(rows, result.split(at_once), strict=True):
            batch.vjp_together(few, into)

    def _columns_at_once(self, batch: JacobianProducts, count: int) -> int:
        if count == 1:
            return 1
        known = self.autotuner.known_columns_at_once(batch)
        if known is not None:
            return known
        room = self.cache.budget_bytes() - self.cache.bytes()
        few = self._zeros(min(4, count)).T
        return self.autotuner.columns_at_once(batch, few, max(room, 0), count)

    def _zeros(self, count: int) -> Float[Tensor, "k p"]:
        return torch.zeros(count, self.space.size, dtype=self.dtype, device=self.device)


def _outputs(batch: JacobianProducts, rows: slice) -> Float[Tensor, "b C"]:
    """The logits of some rows of a batch."""
    return batch.outputs()[rows]
