"""Differences with probabilities that stay accurate when those are nearly zero and one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def mean_minus_each(
    probabilities: Float[Tensor, "b C"], columns: Float[Tensor, "b C k"]
) -> Float[Tensor, "b C k"]:
    """⟨p_i, u_i⟩ − u_{i,c}: a sample's products with the gradients J_iᵀ(p_i − e_c).

    Taken from the most probable class, whose own difference is then a sum of small terms: where
    p is nearly one-hot it is as small as 1 − p, and would be lost beside u.

    >>> import torch
    >>> p = torch.tensor([[1.0, 1e-30]])
    >>> mean_minus_each(p, torch.tensor([[[3.0], [5.0]]]))[0, :, 0]
    tensor([ 2.0000e-30, -2.0000e+00])
    """
    top = probabilities.argmax(dim=1)[:, None, None].expand(-1, 1, columns.shape[2])
    beyond = columns - columns.gather(1, top)
    return (probabilities[:, :, None] * beyond).sum(dim=1, keepdim=True) - beyond


def mean_minus_each_transposed(
    probabilities: Float[Tensor, "b C"], amounts: Float[Tensor, "b C k"]
) -> Float[Tensor, "b C k"]:
    """p_c Σ_d a_d − a_c, the transpose of :func:`mean_minus_each`, as accurate as that.

    Σ_c a_c (p − e_c), so that Jᵀ of it is Σ_c a_c J_iᵀ(p_i − e_c). For the most probable class m
    it is p_m Σ_{d≠m} a_d − (Σ_{d≠m} p_d) a_m, with 1 − p_m summed from the other probabilities:
    p_m a_m − a_m would leave only rounding where p is nearly one-hot.

    >>> import torch
    >>> p = torch.tensor([[1.0, 1e-30]])
    >>> mean_minus_each_transposed(p, torch.tensor([[[3.0], [0.0]]]))[0, :, 0]
    tensor([-3.0000e-30,  3.0000e-30])
    """
    p = probabilities[:, :, None]
    top = probabilities.argmax(dim=1)[:, None, None]
    place = top.expand(-1, 1, amounts.shape[2])
    others = amounts.scatter(1, place, 0.0).sum(dim=1, keepdim=True)
    doubt = probabilities.scatter(1, top[:, :, 0], 0.0).sum(dim=1)[:, None, None]
    of_top = amounts.gather(1, place)
    result = p * (others + of_top) - amounts
    return result.scatter(1, place, p.gather(1, top) * others - doubt * of_top)


def softmax_residual(
    probabilities: Float[Tensor, "b C"], targets: Float[Tensor, "b C"]
) -> Float[Tensor, "b C"]:
    """p_i − t_i; of the most probable target m as p_m (1 − t_m) − t_m Σ_{c≠m} p_c.

    For one class, t_m = 1, that is minus the sum of the others, as accurate as they are.

    >>> import torch
    >>> softmax_residual(torch.tensor([[1.0, 1e-30]]), torch.tensor([[1.0, 0.0]]))
    tensor([[-1.0000e-30,  1.0000e-30]])
    """
    classes = torch.arange(targets.shape[1], device=targets.device)
    top = (classes == targets.argmax(dim=1, keepdim=True)).to(targets.dtype)
    rest = 1 - top
    others = probabilities * rest
    of_top = probabilities * (1 - targets) - targets * others.sum(dim=1, keepdim=True)
    return others - targets * rest + top * of_top
