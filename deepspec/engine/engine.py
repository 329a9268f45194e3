"""Products J V, Jᵀ R, JᵀKJ V and ∇²φ V over all batches, as fast as the memory allows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.classifier.shares import Shares
from deepspec.engine.autodiff import HeldJacobian, JacobianProducts
from deepspec.engine.autotune import COLUMNS, Autotuner
from deepspec.engine.block_sums import BlockSums
from deepspec.engine.cache import BatchCache
from deepspec.engine.cached_products import (
    HELD_AS,
    LogitGradients,
    hessian_purpose,
    jacobian_purpose,
)
from deepspec.engine.derivative_checks import ROUTES
from deepspec.engine.distributed import ALONE, Group
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
            except torch.OutOfMemoryError as error:
                if not self.group.alone:  # the others cannot follow
                    raise torch.OutOfMemoryError(
                        f"{error}; of several processes none can go on with smaller batches by "
                        "itself: pass a smaller batch_size or memory_budget"
                    ) from error
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
    example
        Gives the first batch of all; by default the first of ``functions``.
    group, shares
        The ranks that products are shared by, and who has which batches. ``functions`` gives
        those of this rank; products are of all the data, the same on every rank.
    """

    def __init__(
        self,
        functions: Callable[..., Iterator[tuple[slice, LogitFunction]]],
        space: ParameterSpace,
        num_classes: int,
        dtype: torch.dtype,
        device: torch.device,
        memory_budget: int | float,
        halve: Callable[[], bool],
        epsilon: float,
        logit_memory: int | None = None,
        example: Callable[[], LogitFunction] | None = None,
        group: Group = ALONE,
        shares: Shares | None = None,
    ) -> None:
        self._functions = functions
        self._example = example or (lambda: next(functions())[1])
        self.group, self.shares = group, shares
        self.space, self.dtype, self.device = space, dtype, device
        self._halve, self._num_classes, self._logit_memory = halve, num_classes, logit_memory
        self._identity = identity(self._example().model, space, num_classes, dtype)
        self.autotuner = Autotuner(epsilon**0.5)
        self.autotuner.plan.update(self._identity)
        first = 0 if shares is None else shares.first_full
        plan = self.autotuner.plan
        self.cache = BatchCache(functions, plan, memory_budget, device, group, first)
        self.sums = BlockSums(group, shares, space.size, dtype)
        #: Columns multiplied so far, by kind of product.
        self.spent: Counter[str] = Counter()
        self._jacobian = jacobian_purpose(self.autotuner, num_classes, self.cache.budget_bytes)

    # ---- products ---------------------------------------------------------------------------

    @_with_smaller_batches
    def jvp(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "n C k"]:
        """J V in float64: the change of all logits along each column."""
        self._begin("jvp", columns)
        return self._joined([self._jvp(batch, columns) for _, batch in self._batches()], columns)

    @_with_smaller_batches
    def vjp(self, coefficients: Float[Tensor, "n C k"]) -> Float[Tensor, "p k"]:
        """Jᵀ R: the gradient of ⟨R_k, f⟩ for each k."""
        self._begin("vjp", coefficients)
        return self._summed(
            coefficients.shape[2],
            (partial(self._vjp, batch, coefficients[rows]) for rows, batch in self._batches()),
        )

    @_with_smaller_batches
    def per_sample_pullback_product(
        self, kernel: RowKernel, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V for a kernel that acts on each sample's logits alone: one pass over the data."""
        self._begin("pullback", columns)

        def add(rows: slice, batch: JacobianProducts, result: Float[Tensor, "k p"]) -> None:
            if self._logit_memory is None and self._bytes(rows) <= WHOLE_BYTES:
                pushed = kernel(self._jvp(batch, columns), rows, batch.outputs)
                self._vjp(batch, pushed, result)
                return
            for column, into in zip(columns.T, result, strict=True):
                batch.vjp(self._in_pieces(batch, kernel, column.contiguous(), rows), into)

        jobs = (partial(add, rows, batch) for rows, batch in self._batches())
        return self._summed(columns.shape[1], jobs)

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
        self._begin("pullback", columns)
        images = [self._streamed(kernel, column) for column in columns.T.contiguous()]
        return torch.cat(images, dim=1)

    def _streamed(self, kernel: Streamed, column: Float[Tensor, " p"]) -> Float[Tensor, "p 1"]:
        found: list[Tensor] = []
        for rows, batch in self._batches():
            pushed = batch.jvp(column)
            for part, place in self._places(rows):
                few = pushed[part, :, None].double()
                found.append(kernel.gather(few, place, partial(_outputs, batch, part)))
        # Every rank adds all of them, in the order of the rows.
        every = self.group.joined(torch.stack(found) if found else None)
        sums = every[0].clone()
        for one in every[1:]:
            sums = sums + one

        def add(rows: slice, batch: JacobianProducts, into: Float[Tensor, "1 p"]) -> None:
            again = batch.jvp(column) if kernel.wants_columns else None
            image = torch.empty_like(batch.outputs())
            for part, place in self._places(rows):
                given = None if again is None else again[part, :, None].double()
                spread = kernel.spread(sums, given, place, partial(_outputs, batch, part))
                image[part] = spread[:, :, 0].to(image.dtype)
            batch.vjp(image, into[0])

        return self._summed(1, (partial(add, rows, batch) for rows, batch in self._batches()))

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
        self._begin("vjp", self._zeros(1).T)

        def add(rows: slice, batch: JacobianProducts, into: Float[Tensor, "1 p"]) -> None:
            parts = []
            for part, place in self._places(rows):
                found = coefficients(place, partial(_outputs, batch, part))
                parts.append(found.to(self.dtype))
            self._vjp(batch, torch.cat(parts)[:, :, None], into)

        return self._summed(1, (partial(add, rows, batch) for rows, batch in self._batches()))[:, 0]

    @_with_smaller_batches
    def pullback_product(
        self, kernel: Kernel, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V for any kernel: J V of all batches first, then Jᵀ.

        Batches that are held, and the last one, need no second forward pass.
        """
        self._begin("pullback", columns)
        pushed: list[Tensor] = []
        ready: list[tuple[slice, JacobianProducts]] = []
        for rows, batch in self._batches():
            if ready and not isinstance(ready[-1][1], HeldJacobian):
                ready.pop()
            pushed.append(self._jvp(batch, columns))
            ready.append((rows, batch))
        coefficients = kernel(self._joined(pushed, columns))
        if len(ready) == len(pushed):
            jobs = (partial(self._vjp, batch, coefficients[rows]) for rows, batch in ready)
            return self._summed(columns.shape[1], jobs)
        # The last one goes first, or its graph would stand beside the others', and is added last.
        rows, last = ready.pop()
        late, end = self._zeros(columns.shape[1]), rows.start
        if not isinstance(last, HeldJacobian):
            self._vjp(last, coefficients[rows], late)
        del last, ready

        def again() -> Iterator[Callable[[Tensor], object]]:
            for rows, batch in self._batches():
                if rows.start == end and not isinstance(batch, HeldJacobian):
                    yield lambda into: into.add_(late)
                else:
                    yield partial(self._vjp, batch, coefficients[rows])

        return self._summed(columns.shape[1], again())

    @_with_smaller_batches
    def hvp(
        self, kind: str, gradients: LogitGradients, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """Σ_b ∇²φ_b V, ``gradients(rows, function)`` giving ∂φ_b/∂(logits) by the logits.

        ``kind`` names φ, so that what :meth:`reserve_hessian` keeps for it is found again.
        """
        self._begin("hvp", columns)
        if not self.group.alone:
            self._decide_nesting(gradients)
        held = self.cache.batches(hessian_purpose(self.autotuner, kind, gradients))

        def add(product: Callable[[Tensor, Tensor], None], into: Float[Tensor, "k p"]) -> None:
            for column, row in zip(columns.T, into, strict=True):
                product(column.contiguous(), row)

        def jobs() -> Iterator[Callable[[Tensor], object]]:
            for index, (rows, function) in enumerate(self._functions()):
                kept = held[index] if index < len(held) else None
                if kept is not None:
                    yield partial(add, kept.product)
                else:
                    gradient = gradients(rows, function)
                    nesting = self.autotuner.nesting(function, gradient)
                    yield partial(add, nesting(function, gradient).product)

        return self._summed(columns.shape[1], jobs())

    # ---- anything else that is a sum over batches, or one piece a batch ------------------------

    def over_batches(
        self, shape: tuple[int, int], add: Callable[[slice, LogitFunction, Tensor], object]
    ) -> Float[Tensor, "k s"]:
        """The sum over batches of what ``add(rows, function, into)`` adds to zeros."""
        jobs = (partial(add, rows, function) for rows, function in self._functions())
        return self.sums.total(torch.zeros(shape, dtype=self.dtype, device=self.device), jobs)

    def everywhere(
        self,
        work: Callable[[slice, LogitFunction], Sequence[Tensor]],
        samples: int | None = None,
    ) -> Iterator[tuple[slice, list[Tensor]]]:
        """The tensors that ``work`` makes of each batch, all batches' on every rank.

        In no order of samples: each rank's first, then each rank's second. With ``samples``,
        batches are cut into parts of at most so many.
        """
        parts = self._functions() if samples is None else self._functions(samples)
        while True:
            part = next(parts, None)
            mine = None if part is None else (part[0], work(*part))
            found = self.group.exchanged(mine)
            if not found:
                return
            yield from found

    def example(self) -> LogitFunction:
        """The first batch of all the data, on every rank."""
        return self._example()

    def free_memory(self) -> int:
        """Bytes that are free on the device, as every rank may count on them."""
        return self.group.free_memory()

    def budget_bytes(self) -> int:
        """What every rank may hold between products, in bytes."""
        return self.group.lowest(self.cache.budget_bytes())

    # ---- what is kept between products ------------------------------------------------------

    @_with_smaller_batches
    def reserve_jacobian(self, products: int) -> None:
        """Hold as many batches as the budget allows, if so many products with J pay for it."""
        if not self.group.alone:
            self.check()
        self.cache.reserve(self._jacobian, products)

    @_with_smaller_batches
    def reserve_hessian(self, kind: str, gradients: LogitGradients, products: int) -> None:
        """Hold as many batches as the budget allows, if so many products with ∇²φ pay for it."""
        if not self.group.alone:
            self.check()
            self._decide_nesting(gradients)
        self.cache.reserve(hessian_purpose(self.autotuner, kind, gradients), products)

    def follow(self, plan: Mapping[str, str | int]) -> None:
        """Forget everything that is held, and make the choices of ``plan``.

        Raises
        ------
        ValueError
            If it is of another net, or no plan there can be; see :mod:`.plan`.
        """
        self._decide_as(accepted(self.sums.follow(plan), self._identity))

    def _decide_as(self, choices: Mapping[str, str | int]) -> None:
        self.cache.follow({**self._identity, **choices})

    def plan(self) -> dict[str, str | int]:
        """The choices made so far; of several ranks, also how they exchange numbers."""
        return {**self.autotuner.plan, **self.sums.plan(self._num_classes)}

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
        plan = self.autotuner.plan
        if "forward mode" not in plan:
            functions = (function for _, function in self._functions())
            self.group.together(lambda: self.autotuner.route(functions))
            # What one rank's samples show holds for all.
            found = self.group.values(plan["forward mode"])
            plan["forward mode"] = max(found, key=list(ROUTES).index)

    # ---- decisions that all ranks make alike ---------------------------------------------------

    def _begin(self, kind: str, columns: Tensor) -> None:
        """Count the columns; see that all ranks are here, and have decided how to go on."""
        self.spent[kind] += columns.shape[-1]
        if self.group.alone:
            return
        self.group.require_same(kind, columns)
        self.check()
        if columns.shape[-1] > 1 and kind != "hvp":
            self._decide_columns(columns.shape[-1])

    def _decide_columns(self, count: int) -> None:
        """How many columns at once, of batches that are held and of others."""
        held = self.cache.held_everywhere(self._jacobian)
        some_are_not = self.shares is None or held < self.shares.full
        ways: list[JacobianProducts] = []

        def decide() -> dict[str, str | int]:
            _, function = next(self._functions())
            kept = self.cache.batches(self._jacobian)
            ways.extend(batch for batch in kept[:1] if batch is not None)
            if some_are_not or not ways:
                ways.append(self.autotuner.transient(function)(function))
            for batch in ways:
                self._columns_at_once(batch, count)
            return self.autotuner.plan

        way = str(self.autotuner.plan.get("jacobian: kept"))
        kinds = [HELD_AS[way]] if held else []
        if some_are_not:
            kinds.append(ROUTES[str(self.autotuner.plan["forward mode"])].__name__)
        self._decide([COLUMNS.format(kind) for kind in kinds], decide)

    def _decide_nesting(self, gradients: LogitGradients) -> None:
        def decide() -> dict[str, str | int]:
            rows, function = next(self._functions())
            self.autotuner.nesting(function, gradients(rows, function))
            return self.autotuner.plan

        self._decide(["hessian: nesting"], decide)

    def _decide(self, names: list[str], decide: Callable[[], dict[str, str | int]]) -> None:
        """Enter the first rank's choices in every rank's plan, where one is missing."""
        plan = self.autotuner.plan
        if any(name not in plan for name in names):
            found = self.group.from_first(decide)
            plan.update(found)

    # ---- all batches ---------------------------------------------------------------------------

    def _joined(self, parts: list[Tensor], columns: Tensor) -> Float[Tensor, "n C k"]:
        """This rank's rows of J V, and everyone's."""
        if self.shares is None or self.group.alone:
            return torch.cat(parts)
        shape = (self.shares.count, self._num_classes, columns.shape[1])
        whole = torch.empty(shape, dtype=torch.float64, device=self.device)
        if parts:
            torch.cat(parts, out=whole[self.shares.rows[self.group.rank]])
        owners = [(rows, owner) for owner, rows in enumerate(self.shares.rows)]
        self.group.fill(whole, owners, "putting J v together")
        return whole

    def _summed(
        self, count: int, jobs: Iterable[Callable[[Tensor], object]]
    ) -> Float[Tensor, "p k"]:
        return self.sums.total(self._zeros(count), jobs).T

    # ---- one batch --------------------------------------------------------------------------

    def _batches(self) -> Iterator[tuple[slice, JacobianProducts]]:
        held = self.cache.batches(self._jacobian)
        for index, (rows, function) in enumerate(self._functions()):
            kept = held[index] if index < len(held) else None
            yield rows, kept or self.autotuner.transient(function)(function)

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
