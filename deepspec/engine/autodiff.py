"""Products with the Jacobian of one batch's logits, and with the Hessian of a loss on them.

Two ways for each: *held*, which keeps what a product can reuse, and *transient*, which forgets
everything between products and so needs the memory of one batch only. Both give the same
numbers to rounding.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import linearize, vjp

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.memory import graph_tensors, storage_bytes

with warnings.catch_warnings(), forward_ad.dual_level():
    # PyTorch compiles its forward-mode rules at the first use, in a way it warns about itself.
    warnings.simplefilter("ignore", DeprecationWarning)
    forward_ad.make_dual(torch.zeros(1), torch.zeros(1))

LogitGradient = Callable[[Float[Tensor, "b C"]], Float[Tensor, "b C"]]


class JacobianProducts(ABC):
    """J v and Jᵀ r for one batch, J = ∂(logits)/∂θ."""

    #: Whether :meth:`vjp_together` gains anything.
    pulls_together: ClassVar[bool] = False

    @abstractmethod
    def jvp(self, vector: Float[Tensor, " p"]) -> Float[Tensor, "b C"]:
        """J v."""

    @abstractmethod
    def jvp_together(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        """J V with the columns as one more batch dimension."""

    @abstractmethod
    def vjp(self, coefficients: Float[Tensor, "b C"], into: Float[Tensor, " p"]) -> None:
        """Add Jᵀ r to ``into``."""

    def jvp_one_by_one(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        """J V, a column at a time."""
        return torch.stack([self.jvp(column.contiguous()) for column in columns.T], dim=2)

    def vjp_together(
        self, coefficients: Float[Tensor, "b C k"], into: Float[Tensor, "k p"]
    ) -> None:
        """Add Jᵀ R to the rows of ``into``; a column at a time where nothing is gained."""
        for column, row in zip(coefficients.unbind(2), into, strict=True):
            self.vjp(column, row)

    @abstractmethod
    def outputs(self) -> Float[Tensor, "b C"]:
        """The logits themselves."""

    @abstractmethod
    def column_bytes(self) -> int:
        """The memory that one more column of :meth:`jvp_together` takes, at most."""


class HeldJacobian(JacobianProducts):
    """Products that do not run the model, from what is kept."""

    @abstractmethod
    def bytes(self) -> int:
        """The memory it holds, beside the parameters."""


class LinearisedJacobian(HeldJacobian):
    """The forward map linearised once, and its graph kept."""

    def __init__(self, function: LogitFunction) -> None:
        self.space = function.space
        self._leaves = list((leaves := function.leaves()).values())
        self._logits = function(leaves)
        self._jvp, self.constants = _linearised(function, function.parameters)

    def jvp(self, vector: Float[Tensor, " p"]) -> Float[Tensor, "b C"]:
        return self._jvp(self.space.unflatten(vector))

    def jvp_together(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        return torch.vmap(self._jvp, out_dims=2)(self.space.unflatten_columns(columns))

    def vjp(self, coefficients: Float[Tensor, "b C"], into: Float[Tensor, " p"]) -> None:
        _vjp(self.space, self._logits, self._leaves, coefficients, into)

    def outputs(self) -> Float[Tensor, "b C"]:
        return self._logits.detach()

    def bytes(self) -> int:
        """The memory it holds, beside the parameters."""
        kept = [*graph_tensors(self._logits), *self.constants]
        return storage_bytes(kept, without=self._leaves)

    def column_bytes(self) -> int:
        return storage_bytes(graph_tensors(self._logits), without=self._leaves)


class TransientJacobian(JacobianProducts):
    """One forward pass with dual numbers gives J v, and its graph then gives Jᵀ r.

    The graph of the last ``jvp`` is kept for the pulls that follow.
    """

    def __init__(self, function: LogitFunction) -> None:
        self.function = function
        self.space = function.space
        self._leaves: list[Tensor] = []
        self._logits: Tensor | None = None

    def jvp(self, vector: Float[Tensor, " p"]) -> Float[Tensor, "b C"]:
        leaves = self.function.leaves()
        logits, pushed = self._dual(leaves, vector)
        self._leaves, self._logits = list(leaves.values()), logits
        return pushed

    def jvp_one_by_one(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        *others, last = columns.T.unbind()
        # One graph serves all pulls, so that of the last column is enough.
        with torch.no_grad():
            pushed = [self._dual(self.function.parameters, c.contiguous())[1] for c in others]
        return torch.stack([*pushed, self.jvp(last.contiguous())], dim=2)

    def _dual(
        self, leaves: Mapping[str, Tensor], vector: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "b C"], Float[Tensor, "b C"]]:
        tangents = self.space.tangents(vector)
        with forward_ad.dual_level():
            duals = {k: forward_ad.make_dual(leaf, tangents[k]) for k, leaf in leaves.items()}
            logits, pushed = forward_ad.unpack_dual(self.function(duals))
        return logits, torch.zeros_like(logits) if pushed is None else pushed.detach()

    def jvp_together(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        def one(tangents: dict[str, Tensor]) -> Tensor:
            return torch.func.jvp(self.function, (self.function.parameters,), (tangents,))[1]

        return torch.vmap(one, out_dims=2)(self.space.unflatten_columns(columns))

    def vjp(self, coefficients: Float[Tensor, "b C"], into: Float[Tensor, " p"]) -> None:
        _vjp(self.space, self._graph(), self._leaves, coefficients, into)

    def column_bytes(self) -> int:
        return storage_bytes(graph_tensors(self._graph()), without=self._leaves)

    def outputs(self) -> Float[Tensor, "b C"]:
        return self._graph().detach()

    def _graph(self) -> Float[Tensor, "b C"]:
        if self._logits is None:
            leaves = self.function.leaves()
            self._leaves, self._logits = list(leaves.values()), self.function(leaves)
        return self._logits


class ReverseJacobian(TransientJacobian):
    """J v by differentiating Jᵀ r with respect to r, for models that forbid forward mode."""

    def jvp(self, vector: Float[Tensor, " p"]) -> Float[Tensor, "b C"]:
        leaves = self.function.leaves()
        self._leaves, self._logits = list(leaves.values()), self.function(leaves)
        dummy = torch.zeros_like(self._logits, requires_grad=True)
        pulled = torch.autograd.grad(
            self._logits, self._leaves, dummy, create_graph=True, materialize_grads=True
        )
        tangents = list(self.space.unflatten(vector).values())
        (pushed,) = torch.autograd.grad(pulled, dummy, tangents, materialize_grads=True)
        return pushed

    def jvp_one_by_one(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        return JacobianProducts.jvp_one_by_one(self, columns)

    def jvp_together(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        return self.jvp_one_by_one(columns)


class HessianProducts(ABC):
    """∇²φ v for one batch, φ(θ) a scalar function of its logits, given by ∂φ/∂(logits)."""

    @abstractmethod
    def product(self, vector: Float[Tensor, " p"], into: Float[Tensor, " p"]) -> None:
        """Add ∇²φ v to ``into``."""


class HeldHessian(HessianProducts):
    """The gradient map linearised once."""

    def __init__(self, function: LogitFunction, logit_gradient: LogitGradient) -> None:
        self.space = function.space

        def gradient(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
            primal_and_pull: Any = vjp(function, parameters)
            logits, pull = primal_and_pull
            return pull(logit_gradient(logits))[0]

        self._product, self.constants = _linearised(gradient, function.parameters)

    def product(self, vector: Float[Tensor, " p"], into: Float[Tensor, " p"]) -> None:
        result = self._product(self.space.unflatten(vector))
        self.space.accumulate(into, [result[name] for name in self.space.names])

    def bytes(self) -> int:
        """The memory it holds."""
        return storage_bytes(self.constants)


class ReverseOverForward(HessianProducts):
    """The gradient of dφ/dε at θ + εv: one dual forward pass, and one backward pass over it."""

    def __init__(self, function: LogitFunction, logit_gradient: LogitGradient) -> None:
        self.function, self.logit_gradient = function, logit_gradient

    def product(self, vector: Float[Tensor, " p"], into: Float[Tensor, " p"]) -> None:
        space = self.function.space
        leaves, tangents = self.function.leaves(), space.tangents(vector)
        with forward_ad.dual_level():
            duals = {k: forward_ad.make_dual(leaf, tangents[k]) for k, leaf in leaves.items()}
            logits, pushed = forward_ad.unpack_dual(self.function(duals))
        if pushed is None:
            return
        slope = (self.logit_gradient(logits) * pushed).sum()
        if slope.requires_grad:
            inputs = list(leaves.values())
            space.accumulate(into, torch.autograd.grad(slope, inputs, allow_unused=True))


class ReverseOverReverse(HessianProducts):
    """The gradient's own graph, differentiated again along v."""

    def __init__(self, function: LogitFunction, logit_gradient: LogitGradient) -> None:
        self.function, self.logit_gradient = function, logit_gradient

    def product(self, vector: Float[Tensor, " p"], into: Float[Tensor, " p"]) -> None:
        space = self.function.space
        leaves = self.function.leaves()
        logits = self.function(leaves)
        inputs = list(leaves.values())
        gradients = torch.autograd.grad(
            logits, inputs, self.logit_gradient(logits), create_graph=True, materialize_grads=True
        )
        # Gradients that do not depend on θ (those of a last bias, in E) have no derivative.
        pairs = [
            (gradient, tangent)
            for gradient, tangent in zip(gradients, space.unflatten(vector).values(), strict=True)
            if gradient.requires_grad
        ]
        if pairs:
            moving, tangents = zip(*pairs, strict=True)
            space.accumulate(into, torch.autograd.grad(moving, inputs, tangents, allow_unused=True))


def _vjp(
    space: ParameterSpace,
    logits: Tensor,
    leaves: list[Tensor],
    coefficients: Tensor,
    into: Tensor,
) -> None:
    gradients = torch.autograd.grad(
        logits, leaves, coefficients, retain_graph=True, allow_unused=True
    )
    space.accumulate(into, gradients)


def _linearised(
    function: Callable[[dict[str, Tensor]], Any], parameters: dict[str, Tensor]
) -> tuple[Callable[[dict[str, Tensor]], Any], list[Tensor]]:
    """The derivative of a function at ``parameters``, and the tensors it holds on to."""
    # The trace makes tangents of its own, each with a storage of its own: as views of one flat θ,
    # the primals would be given buffers of p zeros, one for each of them.
    parameters = {name: value.clone() for name, value in parameters.items()}
    with warnings.catch_warnings():
        # torch.func.linearize names its folded constants in a way that torch.fx warns about.
        warnings.filterwarnings("ignore", message="Attempted to insert a get_attr Node")
        warnings.filterwarnings("ignore", message=".*does not reference an nn.Module")
        _, derivative = linearize(function, parameters)
        # Constants are folded at the first call; what they take is known only afterwards.
        derivative({name: torch.zeros_like(value) for name, value in parameters.items()})
    held: list[Tensor] = []
    for value in inspect.getclosurevars(derivative).nonlocals.values():
        if isinstance(value, nn.Module):
            for module in value.modules():
                held.extend(t for t in vars(module).values() if isinstance(t, Tensor))
                held.extend(module.parameters(recurse=False))
                held.extend(module.buffers(recurse=False))
    return derivative, held
