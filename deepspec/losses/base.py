"""What a loss is here: a convex function of each row's outputs, summed with the rows' weights.

The loss of a problem is Σ_i w_i ℓ(f_i, t_i). G = Σ_i w_i J_iᵀ H_i J_i takes H_i = ∂²ℓ/∂f², and the
gradient and E take the residual ∂ℓ/∂f. A loss of one's own needs :meth:`Loss.value` alone: the
rest is then differentiated from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Targets:
    """The targets of a batch's rows, with what each counts.

    Attributes
    ----------
    values
        One entry a row: a class, or numbers.
    scale
        s_i: the loss's own factor for the row, 0 for a row that does not count.
    mass
        m_i: what the row adds to the denominator of the mean. Its weight is w_i = s_i/Σ m.
    """

    values: Shaped[Tensor, "b ..."]
    scale: Float[Tensor, " b"]
    mass: Float[Tensor, " b"]


class Loss(ABC):
    """A convex function ℓ(f, t) of the outputs f ∈ R^C of a row and its target t.

    To define one's own, give :meth:`value`; everything else follows by differentiation, and may
    be overridden where a formula is faster or more accurate.

    >>> class Poisson(Loss):
    ...     def value(self, outputs, targets):
    ...         return (outputs.exp() - targets * outputs).sum(dim=1)
    >>> f, t = torch.tensor([[0.0]]), torch.tensor([[3.0]])
    >>> Poisson().residual(f, t), Poisson().hessian(f, t, torch.ones(1, 1, 1))[0, 0]
    (tensor([[-2.]]), tensor([1.]))
    """

    #: Whether a row has one class, and the loss's Hessian the class structure of cross-entropy.
    has_classes: ClassVar[bool] = False
    #: The fewest outputs there may be.
    least_outputs: ClassVar[int] = 1

    @abstractmethod
    def value(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, " b"]:
        """ℓ(f_i, t_i) of each row, by differentiable operations."""

    def columns(self, outputs: Float[Tensor, "... c"]) -> Float[Tensor, "... C"]:
        """The outputs that the loss is a function of, from those of the model."""
        return outputs

    def targets(self, labels: Tensor, shape: tuple[int, ...], first: int) -> Targets:
        """A batch's labels, checked, as targets of its rows; ``shape`` is that of the outputs.

        By default numbers of the same shape as the outputs, one row of them for each row; each
        counts the same.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        values = numbers(labels, shape, first, type(self).__name__)
        ones = values.new_ones(len(values), dtype=torch.float64)
        return Targets(values=values, scale=ones, mass=ones)

    def prepared(self, targets: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """Targets as :meth:`residual` wants them, for C = ``width`` outputs of a precision."""
        return targets.to(dtype) if targets.is_floating_point() else targets

    def state(self, outputs: Float[Tensor, "b C"]) -> Float[Tensor, "b C"]:
        """What the Hessian is a function of, beside the targets: probabilities, say."""
        return outputs

    def residual(self, outputs: Float[Tensor, "b C"], targets: Tensor) -> Float[Tensor, "b C"]:
        """∂ℓ/∂f of each row, by differentiable operations."""
        gradient: Tensor = torch.func.grad(lambda f: self.value(f, targets).sum())(outputs)
        return gradient

    def hessian(
        self, state: Float[Tensor, "b C"], targets: Tensor, columns: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        """H_i u for each row's columns u."""

        def one(direction: Tensor) -> Tensor:
            return torch.func.jvp(lambda f: self.residual(f, targets), (state,), (direction,))[1]

        return torch.vmap(one, in_dims=2, out_dims=2)(columns)

    def root(
        self, state: Float[Tensor, "b C"], targets: Tensor, amounts: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        """L x with L Lᵀ = H_i: here the symmetric root, from H_i's eigenvectors."""
        eye = torch.eye(state.shape[1], dtype=state.dtype, device=state.device)
        dense = self.hessian(state, targets, eye.expand(len(state), -1, -1))
        values, vectors = torch.linalg.eigh((dense + dense.transpose(1, 2)) / 2)
        level = 1e-10 * values.abs().amax() if values.numel() else 0.0
        if bool((values < -level).any()):
            raise ValueError(
                f"expected a convex loss, but the Hessian of {type(self).__name__} by the outputs "
                f"has the eigenvalue {float(values.min()):.3g}; G has no square root then"
            )
        half = (vectors * values.clamp_min(0.0).sqrt()[:, None]) @ vectors.transpose(1, 2)
        return half @ amounts

    def root_transposed(
        self, state: Float[Tensor, "b C"], targets: Tensor, columns: Float[Tensor, "b C k"]
    ) -> Float[Tensor, "b C k"]:
        """Lᵀ u."""
        return self.root(state, targets, columns)

    def fingerprint(self) -> str:
        """What tells this loss from another one."""
        return repr(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def numbers(labels: Tensor, shape: tuple[int, ...], first: int, loss: str) -> Float[Tensor, "b C"]:
    """Real targets, one for each output, as float64 rows.

    Raises
    ------
    ValueError
        If their shape is another one, or one is not finite.
    """
    # A single output a row may be told with or without its dimension.
    single = shape[-1] == 1 and tuple(labels.shape) == tuple(shape[:-1])
    if not single and tuple(labels.shape) != tuple(shape):
        raise ValueError(
            f"expected targets of {loss} of the outputs' shape {tuple(shape)}, got "
            f"{tuple(labels.shape)}; give one number for each output"
        )
    if labels.is_complex():
        raise ValueError(f"expected real targets, got {labels.dtype}")
    values = labels.reshape(-1, shape[-1]).double()
    bad = ~torch.isfinite(values).all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"expected finite targets, got NaN or infinity in row {int(bad.nonzero()[0])} of the "
            f"batch from sample {first}; leave it out or mend it"
        )
    return values
