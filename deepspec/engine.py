"""Products J V, Jᵀ R, JᵀKJ V and ∇²φ V over all batches, as fast as the memory allows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.autodiff import (
    HeldHessian,
    HeldJacobian,
    JacobianProducts,
    LogitGradient,
    ReverseJacobian,
    TransientJacobian,
)
from deepspec.batch_function import BatchFunction
from deepspec.choices import Choices, attempt
from deepspec.memory import free_memory
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
HELD = "{}: batches held"


def _with_smaller_batches(
    method: Callable[Concatenate[Engine, Arguments], Result],
) -> Callable[Concatenate[Engine, Arguments], Result]:
    """When the GPU's memory runs out: half the batch and once more, with a warning."""

    @wraps(method)
    def retry(self: Engine, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        while True:
            try:
                # Evaluation code often stands under no_grad; products need the graph.
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
        self.choices = Choices()

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
                nesting = self.choices.nesting(function, gradients(rows))
                product = nesting(function, gradients(rows)).product
            for column, into in zip(columns.T, result, strict=True):
                product(column.contiguous(), into)
        return result.T

    # ---- what is kept between products ------------------------------------------------------

    @_with_smaller_batches
    def hold_jacobian(self) -> None:
        """Linearise as many batches as the budget allows, for all products with J."""
        if not self._jacobians and self.forward_mode():
            self._jacobians = self._within_budget(self._held_jacobian, JACOBIAN)

    @_with_smaller_batches
    def hold_hessian(self, kind: str, gradients: LogitGradients) -> None:
        """Linearise the gradient of as many batches as the budget allows."""
        if self._hessians.get(kind) or not self.forward_mode():
            return

        def hold(rows: slice, function: BatchFunction) -> HeldHessian | None:
            held = HeldHessian(function, gradients(rows))
            trusted = self.choices.agrees(held, function, gradients(rows), kind)
            return held if trusted else None

        # Forgetting others clears the table, so the new ones are entered afterwards.
        found = self._within_budget(hold, kind)
        self._hessians[kind] = found

    def release(self) -> None:
        """Forget everything that is held."""
        self._jacobians, self._hessians = [], {}

    def _within_budget(
        self, hold: Callable[[slice, BatchFunction], Held | None], kind: str
    ) -> list[Held]:
        """Hold the first batches, in order, while they fit.

        What is held for other products stays while there is room for both. A plan that was
        given says how many, whatever the budget.
        """
        planned = self.choices.plan.get(HELD.format(kind))
        budget = float("inf") if planned is not None else self.budget_bytes()
        held: list[Held] = []
        used, samples, others = 0, 0, self._held_bytes()
        for rows, function in self._functions():
            if budget == 0 or len(held) == planned:
                break
            if others and used * (1 + function.samples / max(samples, 1)) + others > budget:
                self._forget_all_but(kind)
                others = 0
            if used and used * (1 + function.samples / samples) > budget:
                break
            batch = attempt(hold, rows, function)
            if batch is None or used + batch.bytes() > budget:
                break
            held.append(batch)
            used, samples = used + batch.bytes(), samples + function.samples
        if others and used + others > budget:
            self._forget_all_but(kind)
        self.choices.plan[HELD.format(kind)] = len(held)
        return held

    def _held_jacobian(self, rows: slice, function: BatchFunction) -> HeldJacobian | None:
        held = HeldJacobian(function)
        return held if self.choices.agrees_to_first_order(held, function) else None

    def _held_bytes(self) -> int:
        hessians = [batch.bytes() for held in self._hessians.values() for batch in held]
        return sum(batch.bytes() for batch in self._jacobians) + sum(hessians)

    def _forget_all_but(self, kind: str) -> None:
        for other in {JACOBIAN, *self._hessians} - {kind}:
            self.choices.plan.pop(HELD.format(other), None)
        self.release()

    def budget_bytes(self) -> int:
        """What may be held between products, in bytes."""
        if isinstance(self.memory_budget, int):
            return self.memory_budget
        return int(self.memory_budget * free_memory(self.device))

    def halve_batches(self) -> bool:
        """Drop everything held and halve the batches; false if that is impossible."""
        self.release()
        self.choices.plan = {}
        if not self._halve():
            return False
        warnings.warn(
            "out of GPU memory: going on with batches of half the size; pass a smaller "
            "batch_size or memory_budget to avoid the detour",
            ResourceWarning,
            stacklevel=3,
        )
        return True

    def forward_mode(self) -> bool:
        """Whether the model can be differentiated in forward mode; found out at the first call."""
        if "forward mode" not in self.choices.plan:
            _, function = next(self._functions())
            self.choices.forward_mode(function)
        return self.choices.plan["forward mode"] == "yes"

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
        if count == 1 or not self.choices.columns_together(batch, columns):
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
