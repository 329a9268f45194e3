"""A layer's weight, and what of it class means of errors and features account for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.storage.display import Result

if TYPE_CHECKING:
    from deepspec.layerwise.layer import Layer


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class WeightKnockout(Result):
    """Singular values of W^l before and after its class part is knocked out, descending.

    Attributes
    ----------
    layer, weight_decay
        Which weight, and the η it was trained with.
    before
        Of W.
    of_class
        Of W_class: at most C.
    subtracted
        Of W − W_class.
    projected
        Of W ⊘ W_class: W without the left and right singular vectors of W_class.
    stationarity
        ‖∇L + ηW‖/‖ηW‖, 0 at a stationary point. W is the sum of which W_class is a part only there:
        near 1 and above, nothing follows from the knockout.
    net_stationarity
        The same of all of θ.
    """

    layer: str
    weight_decay: float
    before: Float[Tensor, " k"]
    of_class: Float[Tensor, " r"]
    subtracted: Float[Tensor, " k"]
    projected: Float[Tensor, " k"]
    stationarity: float
    net_stationarity: float

    def _words(self) -> list[str]:
        top = ", ".join(f"{float(v):.3g}" for v in self.before[:3])
        left = ", ".join(f"{float(v):.3g}" for v in self.projected[:3])
        far = "" if self.stationarity < 0.1 else ": not stationary"
        return [
            f"{self.layer}: {top}, … → {left}, … without the class means' singular vectors",
            f"‖∇L + ηW‖/‖ηW‖ = {self.stationarity:.2g}{far}",
        ]


class LayerWeight(Tensor):
    """The weight of a layer as a matrix (out, in): a tensor, with :meth:`knock_out`."""

    # Results of operations are plain tensors, as those of parameters are.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    layer: Layer

    @staticmethod
    def of(layer: Layer) -> LayerWeight:
        """The weight of a layer that has one.

        Raises
        ------
        ValueError
            If it has none that is a matrix.
        """
        found = layer.matrix.detach().as_subclass(LayerWeight)
        found.layer = layer
        return found

    def knock_out(self, weight_decay: float) -> WeightKnockout:
        """W against W_class = −(1/η) Σ_c (n_c/n) δ_{c,c} h_cᵀ (Papyan 2020, §7.13).

        At a stationary point of L + η‖θ‖²/2, W = −(1/η) Ave_i δ_{i,c(i)} h_iᵀ: W_class is what
        the class means of errors and features make of it. Where positions share the weight, h_i
        is the mean of a sample's inputs and δ_i the sum of its errors.

        Parameters
        ----------
        weight_decay
            η, as PyTorch's optimisers call it.

        Raises
        ------
        ValueError
            If the weight decay is not above zero: without it no weight is such a sum.
        """
        if not weight_decay > 0:
            raise ValueError(
                f"expected the weight decay that the net was trained with, above 0, got "
                f"{weight_decay}: only with it a weight is a sum of errors times features"
            )
        gradient, means = self._gradient_and_class_part()
        W, part = self.double(), -means / weight_decay
        left, of_class, right = torch.linalg.svd(part, full_matrices=False)
        kept = of_class > max(part.shape) * torch.finfo(self.dtype).eps * of_class[:1]
        left, of_class, right = left[:, kept], of_class[kept], right[kept].T
        projected = W - left @ (left.T @ W)
        projected = projected - (projected @ right) @ right.T
        pull, problem = weight_decay * W, self.layer.problem
        whole = weight_decay * problem.parameters.double()
        return WeightKnockout(
            layer=self.layer.name,
            weight_decay=float(weight_decay),
            before=torch.linalg.svdvals(W).cpu(),
            of_class=of_class.cpu(),
            subtracted=torch.linalg.svdvals(W - part).cpu(),
            projected=torch.linalg.svdvals(projected).cpu(),
            stationarity=_relative(gradient + pull, pull),
            net_stationarity=_relative(problem.gradient().double() + whole, whole),
        )

    def _gradient_and_class_part(self) -> tuple[Float[Tensor, "o i"], Float[Tensor, "o i"]]:
        """∇_W L, and Σ_c (n_c/n) δ_{c,c} h_cᵀ; float64."""
        problem = self.layer.problem
        gradient = torch.zeros(self.shape, dtype=torch.float64, device=self.device)
        inputs = gradient.new_zeros(problem.num_classes, self.shape[1])
        errors = gradient.new_zeros(problem.num_classes, self.shape[0])
        for batch in self.layer.batches():
            each = torch.arange(len(batch.labels), device=batch.labels.device)
            own = batch.errors[each, batch.labels]
            by_position = own.flatten(0, 1).T @ batch.inputs.flatten(0, 1)
            gradient += by_position.double() / problem.num_samples
            inputs.index_add_(0, batch.labels, batch.feature_rows("reduce").vectors.double())
            errors.index_add_(0, batch.labels, own.sum(dim=1).double())
        counts = problem.class_counts.clamp_min(1)[:, None]
        return gradient, errors.T @ (inputs / counts) / problem.num_samples


def _relative(left: Tensor, right: Tensor) -> float:
    size = float(right.norm())
    return float(left.norm()) / size if size else float("inf")
