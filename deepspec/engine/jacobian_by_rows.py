"""J v where a model can be differentiated once, in reverse mode, and not again."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.engine.autodiff import TransientJacobian


class JacobianByRows(TransientJacobian):
    """Each row of J by a backward pass of one sample, multiplied by all columns and forgotten."""

    def jvp(self, vector: Float[Tensor, " p"]) -> Float[Tensor, "b C"]:
        return self.jvp_together(vector[:, None])[:, :, 0]

    def jvp_one_by_one(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        return self.jvp_together(columns)

    def jvp_together(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        tangents = self.space.unflatten_columns(columns)
        parts = [tangents[name].flatten(1) for name in self.space.names]
        samples = range(self.function.samples)
        return torch.stack([self._sample(index, parts) for index in samples])

    def _sample(self, index: int, parts: list[Float[Tensor, "k _"]]) -> Float[Tensor, "C k"]:
        function = self.function.pick(torch.tensor([index], device=parts[0].device))
        leaves = function.leaves()
        (logits,) = function(leaves)
        rows = []
        for logit in logits:
            gradients = torch.autograd.grad(
                logit, list(leaves.values()), retain_graph=True, allow_unused=True
            )
            found = [
                part @ gradient.flatten()
                for part, gradient in zip(parts, gradients, strict=True)
                if gradient is not None
            ]
            rows.append(torch.stack(found).sum(0) if found else parts[0].new_zeros(len(parts[0])))
        return torch.stack(rows)
