"""J v and Jᵀ r of one batch from what its layers see and what errors reach them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.autodiff import HeldJacobian
from deepspec.layers.recording import Layer, record
from deepspec.layers.uses import layers_with_formula
from deepspec.memory import storage_bytes


@dataclass(frozen=True, eq=False)
class Member:
    """A layer whose errors are a factor for each channel times those of its group."""

    layer: Layer
    observed: Tensor
    factor: Float[Tensor, "1 1 c ..."] | None

    def jvp(
        self, tangents: Mapping[str, Tensor], onto: Float[Tensor, "b k ..."] | None
    ) -> Float[Tensor, "b k ..."]:
        """How the layer's output changes, times the factor, added to ``onto``."""
        own = {part: tangents[name] for part, name in self.layer.parameters.items()}
        output = self.layer.formula.jvp(self.observed, own)
        if onto is None or self.factor is None:  # the group's first, whose errors are the group's
            return output
        return torch.addcmul(onto, output, self.factor)

    def vjp(self, errors: Float[Tensor, "b k ..."]) -> dict[str, Tensor]:
        """The transpose, by the parameters' names in θ."""
        scaled = errors if self.factor is None else errors * self.factor
        found = self.layer.formula.vjp(self.observed, scaled)
        return {name: found[part] for part, name in self.layer.parameters.items()}


@dataclass(frozen=True, eq=False)
class SharedErrors:
    """∂(logits)/∂(outputs) that several layers have in common."""

    deltas: Float[Tensor, "b C ..."]
    members: list[Member]


class LayeredJacobian(HeldJacobian):
    """J = [Σ_t δ_t x_tᵀ] over layers, with the inputs x and the errors δ of all logits kept.

    J v is each layer applied to its part of v, and one inner product with its δ; Jᵀ r is the
    transpose. That is two matrix products a layer for both, where derivatives carried through the
    net take four; what it costs is to read δ, C numbers for each activation, once for each.
    Several columns read it once together.
    """

    pulls_together = True

    def __init__(self, function: LogitFunction, layers: list[Layer]) -> None:
        self.space = function.space
        self._function = function
        self.groups = _grouped(layers, record(function, layers))

    @staticmethod
    def of(function: LogitFunction) -> LayeredJacobian | None:
        """For a net all of whose parameters belong to layers with a formula; else ``None``."""
        layers = layers_with_formula(function)
        covered = {name for layer in layers for name in layer.names}
        return LayeredJacobian(function, layers) if covered == set(function.space.names) else None

    def jvp(self, vector: Float[Tensor, " p"]) -> Float[Tensor, "b C"]:
        return self.jvp_together(vector[:, None])[:, :, 0]

    def jvp_together(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "b C k"]:
        tangents = self.space.unflatten_columns(columns)
        total: Tensor | None = None
        for group in self.groups:
            moved: Tensor | None = None
            for member in group.members:
                moved = member.jvp(tangents, moved)
            assert moved is not None
            # (b, k, ·) times (b, ·, C): for one column much faster than its transpose.
            pushed = torch.bmm(moved.flatten(2), group.deltas.flatten(2).transpose(1, 2))
            total = pushed if total is None else total.add_(pushed)
        assert total is not None
        return total.transpose(1, 2)

    def vjp(self, coefficients: Float[Tensor, "b C"], into: Float[Tensor, " p"]) -> None:
        self.vjp_together(coefficients[:, :, None], into[None])

    def vjp_together(
        self, coefficients: Float[Tensor, "b C k"], into: Float[Tensor, "k p"]
    ) -> None:
        rows = coefficients.transpose(1, 2)
        places = dict(zip(self.space.names, into.split(self.space.counts, dim=1), strict=True))
        for group in self.groups:
            errors = torch.bmm(rows, group.deltas.flatten(2))
            shaped = errors.unflatten(2, group.deltas.shape[2:])
            for member in group.members:
                for name, part in member.vjp(shaped).items():
                    places[name].add_(part.flatten(1))

    def outputs(self) -> Float[Tensor, "b C"]:
        with torch.no_grad():
            return self._function(self._function.parameters)

    def bytes(self) -> int:
        """The memory it holds, beside the parameters."""
        deltas = [group.deltas for group in self.groups]
        inputs = [member.observed for group in self.groups for member in group.members]
        return storage_bytes([*deltas, *inputs])

    def column_bytes(self) -> int:
        # A layer's outputs, before and after the factor, and their sum.
        return max(
            3 * group.deltas[:, 0].numel() * group.deltas.element_size() for group in self.groups
        )


def _grouped(
    layers: list[Layer], records: list[tuple[Tensor, Float[Tensor, "b C ..."]]]
) -> list[SharedErrors]:
    """Layers by the errors they share, the last ones first.

    Before a normalisation with fixed statistics, or where branches are added up, one layer's
    errors are another's times a factor for each channel. Whether they are is seen in the numbers
    themselves, so it holds for whatever the net does between them.
    """
    groups: list[SharedErrors] = []
    for layer, (observed, deltas) in reversed(list(zip(layers, records, strict=True))):
        for group in groups:
            factor = _factor(deltas, group.deltas)
            if factor is not None:
                group.members.append(Member(layer, observed, factor))
                break
        else:
            groups.append(SharedErrors(deltas, [Member(layer, observed, None)]))
    return groups


def _factor(
    deltas: Float[Tensor, "b C c ..."], base: Float[Tensor, "b C c ..."]
) -> Float[Tensor, "1 1 c ..."] | None:
    """f with δ = f δ_base to rounding, one number for each channel; ``None`` if there is none."""
    if deltas.shape != base.shape or deltas.ndim < 3:
        return None
    for samples in (1, len(deltas)):  # most pairs differ at the first sample already
        pairs = _in_pieces(deltas[:samples], base[:samples])
        size = _by_channel(theirs * theirs for _, theirs in pairs)
        overlap = _by_channel(ours * theirs for ours, theirs in pairs)
        factor = torch.where(size > 0, overlap / size, torch.zeros_like(size)).to(deltas.dtype)
        error = _by_channel((ours - factor * theirs).square() for ours, theirs in pairs)
        total = _by_channel(ours * ours for ours, _ in pairs)
        if bool((error > (8 * torch.finfo(deltas.dtype).eps) ** 2 * total).any()):
            return None
    return factor


def _in_pieces(left: Tensor, right: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Both cut into samples whose products stay in the caches."""
    samples = max(1, 2**18 // left[0].numel())
    return list(zip(left.split(samples), right.split(samples), strict=True))


def _by_channel(pieces: Iterable[Float[Tensor, "s C c ..."]]) -> Float[Tensor, "1 1 c ..."]:
    """Sums over everything but the channel, in float64."""
    total: Tensor | None = None
    for piece in pieces:
        others = [dim for dim in range(piece.ndim) if dim != 2]
        part = piece.sum(dim=others, keepdim=True, dtype=torch.float64)
        total = part if total is None else total + part
    assert total is not None
    return total
