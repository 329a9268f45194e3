"""Products J V, Jᵀ R, JᵀKJ V and ∇²φ V over all batches, as fast as the memory allows."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.autodiff import (
    BatchFunction,
    ForwardOverReverse,
    HeldHessian,
    HeldJacobian,
    JacobianProducts,
    LogitGradient,
    ReverseJacobian,
    ReverseOverReverse,
    TransientJacobian,
    innermost_module,
)
from deepspec.parameters import ParameterSpace

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Held = TypeVar("Held", HeldJacobian, HeldHessian)
RowKernel = Callable[[Float[Tensor, "b C k"], slice], Float[Tensor, "b C k"]]
Kernel = Callable[[Float[Tensor, "n C k"]], Float[Tensor, "n C k"]]
LogitGradients = Callable[[slice], LogitGradient]

# Linearising a batch costs up to about thirty gradients, and saves about one a product.
PRODUCTS_WORTH_HOLDING = 16
COLUMNS_AT_ONCE = 16
JACOBIAN = "jacobian"
# How PyTorch words that a function has no forward mode, or cannot be traced once for all.
FORBIDDEN = ("forward ad", "forward mode", "jvp", "setup_context", "tracing tensor", "data-depend")
NESTINGS = {
    "forward over reverse": ForwardOverReverse,
    "reverse over reverse": ReverseOverReverse,
}


def _with_smaller_batches(
    method: Callable[Concatenate[Engine, Arguments], Result],
) -> Callable[Concatenate[Engine, Arguments], Result]:
    """When the GPU's memory runs out: half the batch and once more, with a warning."""

    @wraps(method)
    def retry(self: Engine, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        while True:
            try:
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
    dtype, device
        Of the vectors.
    memory_budget
        Bytes, or a share of the free memory, that batches may hold between products.
    halve
        Halves the batches; returns false if they hold a single sample already.
    """

    def __init__(
        self,
        functions: Callable[[], Iterator[tuple[slice, BatchFunction]]],
        space: ParameterSpace,
        dtype: torch.dtype,
        device: torch.device,
        memory_budget: int | float,
        halve: Callable[[], bool],
    ) -> None:
        self._functions = functions
        self.space, self.dtype, self.device = space, dtype, device
        self.memory_budget = memory_budget
        self._halve = halve
        self._jacobians: list[HeldJacobian] = []
        self._hessians: dict[str, list[HeldHessian]] = {}
        self.plan: dict[str, str | int] = {}

    # ---- products ---------------------------------------------------------------------------

    @_with_smaller_batches
    def push(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "n C k"]:
        """J V in float64: the change of all logits along each column."""
        return torch.cat([self._push(batch, columns) for _, batch in self._batches()])

    @_with_smaller_batches
    def pull(self, coefficients: Float[Tensor, "n C k"]) -> Float[Tensor, "p k"]:
        """Jᵀ R: the gradient of ⟨R_k, f⟩ for each k."""
        result = self._zeros(coefficients.shape[2])
        for rows, batch in self._batches():
            self._pull(batch, coefficients[rows], result)
        return result.T

    @_with_smaller_batches
    def sandwich_rows(
        self, kernel: RowKernel, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V for a kernel that acts on each sample's logits alone: one pass over the data."""
        result = self._zeros(columns.shape[1])
        for rows, batch in self._batches():
            self._pull(batch, kernel(self._push(batch, columns), rows), result)
        return result.T

    @_with_smaller_batches
    def sandwich(self, kernel: Kernel, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        """JᵀKJ V for any kernel: J V of all batches first, then Jᵀ.

        Batches that are held, and the last one, need no second forward pass.
        """
        pushed: list[Tensor] = []
        ready: list[tuple[slice, JacobianProducts]] = []
        for rows, batch in self._batches():
            if ready and not isinstance(ready[-1][1], HeldJacobian):
                ready.pop()
            pushed.append(self._push(batch, columns))
            ready.append((rows, batch))
        coefficients = kernel(torch.cat(pushed))
        result = self._zeros(columns.shape[1])
        done = {rows.start for rows, _ in ready}
        while ready:
            rows, batch = ready.pop()
            self._pull(batch, coefficients[rows], result)
        del batch
        if len(done) < len(pushed):
            for rows, batch in self._batches():
                if rows.start not in done:
                    self._pull(batch, coefficients[rows], result)
        return result.T

    @_with_smaller_batches
    def hessian(
        self, kind: str, gradients: LogitGradients, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """Σ_b ∇²φ_b V, ``gradients(rows)`` being ∂φ_b/∂(logits) as a function of the logits.

        ``kind`` names φ, so that what :meth:`hold_hessian` keeps for it is found again.
        """
        result = self._zeros(columns.shape[1])
        held = self._hessians.get(kind, [])
        for index, (rows, function) in enumerate(self._functions()):
            if index < len(held):
                product = held[index].product
            else:
                nesting = self._nesting(function, gradients(rows), columns[:, 0])
                product = NESTINGS[nesting](function, gradients(rows)).product
            for column, into in zip(columns.T, result, strict=True):
                product(column.contiguous(), into)
        return result.T

    # ---- what is kept between products ------------------------------------------------------

    @_with_smaller_batches
    def hold_jacobian(self) -> None:
        """Linearise as many batches as the budget allows, for all products with J."""
        if not self._jacobians and self.forward_mode():
            self._jacobians = self._within_budget(lambda rows, f: HeldJacobian(f), JACOBIAN)

    @_with_smaller_batches
    def hold_hessian(self, kind: str, gradients: LogitGradients) -> None:
        """Linearise the gradient of as many batches as the budget allows."""
        if not self._hessians.get(kind) and self.forward_mode():
            self._hessians[kind] = self._within_budget(
                lambda rows, f: HeldHessian(f, gradients(rows)), kind
            )

    def release(self) -> None:
        """Forget everything that is held."""
        self._jacobians, self._hessians = [], {}

    def _within_budget(self, hold: Callable[[slice, BatchFunction], Held], kind: str) -> list[Held]:
        """Hold the first batches, in order, while they fit; others make room for the newest."""
        self.release()
        limit = int(self.plan.get(f"{kind}: batches held", 2**62))
        budget = self.budget_bytes()
        held: list[Held] = []
        used, samples = 0, 0
        for rows, function in self._functions():
            estimate = used * function.samples / samples if samples else 0
            if budget == 0 or len(held) >= limit or used + estimate > budget:
                break
            batch = _attempt(hold, rows, function)
            if batch is None or used + batch.bytes() > budget:
                break
            held.append(batch)
            used, samples = used + batch.bytes(), samples + function.samples
        self.plan[f"{kind}: batches held"] = len(held)
        return held

    def budget_bytes(self) -> int:
        """What may be held between products, in bytes."""
        if isinstance(self.memory_budget, int):
            return self.memory_budget
        return int(self.memory_budget * free_memory(self.device))

    def halve_batches(self) -> bool:
        """Drop everything held and halve the batches; false if that is impossible."""
        self.release()
        self.plan = {}
        if not self._halve():
            return False
        warnings.warn(
            "out of GPU memory: going on with batches of half the size; pass a smaller "
            "batch_size or memory_budget to avoid the detour",
            ResourceWarning,
            stacklevel=3,
        )
        return True

    # ---- choices, made once by measurement --------------------------------------------------

    def forward_mode(self) -> bool:
        """Whether the model can be differentiated in forward mode; tried once, on one batch."""
        if "forward mode" not in self.plan:
            _, function = next(self._functions())
            zero = torch.zeros(self.space.size, dtype=self.dtype, device=self.device)

            def attempt() -> Tensor:
                return TransientJacobian(function.head(1)).push(zero)

            possible = _attempt(attempt) is not None
            if not possible:
                warnings.warn(
                    f"{innermost_module(function.model, attempt)} cannot be differentiated in "
                    "forward mode; using reverse mode twice, which is slower",
                    RuntimeWarning,
                    stacklevel=4,
                )
            self.plan["forward mode"] = "yes" if possible else "no"
        return self.plan["forward mode"] == "yes"

    def _nesting(self, function: BatchFunction, gradient: LogitGradient, vector: Tensor) -> str:
        """The faster way to differentiate a gradient on this device."""
        if "hessian: nesting" not in self.plan:
            names = list(NESTINGS) if self.forward_mode() else ["reverse over reverse"]
            scratch = self._zeros(1)[0]
            candidates = {name: NESTINGS[name](function, gradient) for name in names}
            seconds = {
                name: self._seconds(partial(nesting.product, vector.contiguous(), scratch))
                for name, nesting in candidates.items()
            }
            self.plan["hessian: nesting"] = min(seconds, key=seconds.__getitem__)
        return str(self.plan["hessian: nesting"])

    def _columns_together(self, batch: JacobianProducts, columns: Tensor) -> bool:
        """Whether several columns are pushed faster as one more batch dimension."""
        if "columns" not in self.plan:
            few = columns[:, : min(4, columns.shape[1])]
            apart = self._seconds(lambda: batch.push_one_by_one(few))
            together = self._seconds(lambda: batch.push_together(few))
            self.plan["columns"] = "together" if together < apart else "one by one"
        return self.plan["columns"] == "together"

    def _seconds(self, work: Callable[[], object], repeats: int = 2) -> float:
        best = float("inf")
        for _ in range(repeats + 1):
            self._synchronise()
            start = time.perf_counter()
            work()
            self._synchronise()
            best = min(best, time.perf_counter() - start)
        return best

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    # ---- one batch --------------------------------------------------------------------------

    def _batches(self) -> Iterator[tuple[slice, JacobianProducts]]:
        transient = TransientJacobian if self.forward_mode() else ReverseJacobian
        for index, (rows, function) in enumerate(self._functions()):
            if index < len(self._jacobians):
                yield rows, self._jacobians[index]
            else:
                yield rows, transient(function)

    def _push(
        self, batch: JacobianProducts, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "b C k"]:
        count = columns.shape[1]
        if count == 1 or not self._columns_together(batch, columns):
            return batch.push_one_by_one(columns).double()
        parts = [
            batch.push_together(columns[:, start : start + COLUMNS_AT_ONCE])
            for start in range(0, count, COLUMNS_AT_ONCE)
        ]
        return torch.cat(parts, dim=2).double()

    def _pull(
        self, batch: JacobianProducts, coefficients: Float[Tensor, "b C k"], result: Tensor
    ) -> None:
        for column, into in zip(coefficients.to(self.dtype).unbind(2), result, strict=True):
            batch.pull(column, into)

    def _zeros(self, count: int) -> Float[Tensor, "k p"]:
        return torch.zeros(count, self.space.size, dtype=self.dtype, device=self.device)


def _attempt(work: Callable[..., Result], *arguments: object) -> Result | None:
    """What ``work`` returns, or ``None`` where the model forbids forward mode or tracing."""
    try:
        return work(*arguments)
    except NotImplementedError:
        return None
    except RuntimeError as error:
        if any(phrase in str(error).lower() for phrase in FORBIDDEN):
            return None
        raise


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
