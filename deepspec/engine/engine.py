"""Products J V, Jᵀ R, JᵀKJ V and ∇²φ V over all batches, as fast as the memory allows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.classifier.shares import Shares
from deepspec.engine.autotune import Autotuner
from deepspec.engine.block_sums import BlockSums
from deepspec.engine.cache import BatchCache
from deepspec.engine.cached_products import LogitGradients, hessian_purpose
from deepspec.engine.common_choices import CommonChoices
from deepspec.engine.distributed import ALONE, Group
from deepspec.engine.jacobian_batches import JacobianBatches
from deepspec.engine.kernels import Kernel, RowKernel, RowVector, Streamed
from deepspec.engine.plan import accepted, identity
from deepspec.engine.pullback_products import PullbackProducts
from deepspec.engine.smaller_batches import with_smaller_batches


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
        self._halve, self._num_classes = halve, num_classes
        self._identity = identity(self._example().model, space, num_classes, dtype)
        self.autotuner = Autotuner(epsilon**0.5)
        self.autotuner.plan.update(self._identity)
        first = 0 if shares is None else shares.first_full
        plan = self.autotuner.plan
        self.cache = BatchCache(functions, plan, memory_budget, device, group, first)
        self.sums = BlockSums(group, shares, space.size, dtype)
        #: Columns multiplied so far, by kind of product.
        self.spent: Counter[str] = Counter()
        #: J of this rank's batches.
        self.jacobians = JacobianBatches(
            functions,
            space,
            dtype,
            device,
            num_classes,
            self.autotuner,
            self.cache,
            self.sums,
            group,
            shares,
        )
        self._pullbacks = PullbackProducts(self.jacobians, group, dtype, logit_memory)
        self._choices = CommonChoices(self.jacobians, self.autotuner, self.cache, group, shares)

    # ---- products ---------------------------------------------------------------------------

    @with_smaller_batches
    def jvp(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "n C k"]:
        """J V in float64: the change of all logits along each column."""
        self._begin("jvp", columns)
        pushed = [self.jacobians.jvp(batch, columns) for _, batch in self.jacobians]
        return self.jacobians.joined(pushed, columns)

    @with_smaller_batches
    def vjp(self, coefficients: Float[Tensor, "n C k"]) -> Float[Tensor, "p k"]:
        """Jᵀ R: the gradient of ⟨R_k, f⟩ for each k."""
        self._begin("vjp", coefficients)
        vjp = self.jacobians.vjp
        jobs = (partial(vjp, batch, coefficients[rows]) for rows, batch in self.jacobians)
        return self.jacobians.summed(coefficients.shape[2], jobs)

    @with_smaller_batches
    def pull(self, coefficients: RowVector) -> Float[Tensor, " p"]:
        """Jᵀ r for an r that is made batch by batch, from the logits if need be."""
        self._begin("vjp", self.jacobians.zeros(1).T)
        return self._pullbacks.of_rows(coefficients)

    @with_smaller_batches
    def per_sample_pullback_product(
        self, kernel: RowKernel, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V for a kernel that acts on each sample's logits alone: one pass over the data."""
        self._begin("pullback", columns)
        return self._pullbacks.per_sample(kernel, columns)

    @with_smaller_batches
    def streamed_pullback_product(
        self, kernel: Streamed, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V in two passes: sums over all rows first, then what they make of each row.

        Nothing of the size of rows × logits is held but that of one batch.
        """
        self._begin("pullback", columns)
        images = [self._pullbacks.streamed(kernel, column) for column in columns.T.contiguous()]
        return torch.cat(images, dim=1)

    @with_smaller_batches
    def pullback_product(
        self, kernel: Kernel, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """JᵀKJ V for any kernel: J V of all batches first, then Jᵀ.

        Batches that are held, and the last one, need no second forward pass.
        """
        self._begin("pullback", columns)
        return self._pullbacks.whole(kernel, columns)

    @with_smaller_batches
    def hvp(
        self, kind: str, gradients: LogitGradients, columns: Float[Tensor, "p k"]
    ) -> Float[Tensor, "p k"]:
        """Σ_b ∇²φ_b V, ``gradients(rows, function)`` giving ∂φ_b/∂(logits) by the logits.

        ``kind`` names φ, so that what :meth:`reserve_hessian` keeps for it is found again.
        """
        self._begin("hvp", columns)
        self._choices.nesting(gradients)
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

        return self.jacobians.summed(columns.shape[1], jobs())

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

    @with_smaller_batches
    def reserve_jacobian(self, products: int) -> None:
        """Hold as many batches as the budget allows, if so many products with J pay for it."""
        if not self.group.alone:
            self.check()
        self.cache.reserve(self.jacobians.purpose, products)

    @with_smaller_batches
    def reserve_hessian(self, kind: str, gradients: LogitGradients, products: int) -> None:
        """Hold as many batches as the budget allows, if so many products with ∇²φ pay for it."""
        if not self.group.alone:
            self.check()
        self._choices.nesting(gradients)
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
        self._choices.check()

    def _begin(self, kind: str, columns: Tensor) -> None:
        """Count the columns; see that all ranks are here, and have decided how to go on."""
        self.spent[kind] += columns.shape[-1]
        self._choices.begin(kind, columns)
