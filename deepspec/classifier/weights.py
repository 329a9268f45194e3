"""How much each row counts: weights of one's own, means over rows or over sequences first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

MeanOver = Literal["rows", "sequences"]


def require_mean_over(mean_over: object) -> None:
    """Refuse what says nothing about what the mean is taken over.

    Raises
    ------
    ValueError
        If it is neither of the two.
    """
    if mean_over not in ("rows", "sequences"):
        raise ValueError(f'expected mean_over="rows" or "sequences", got {mean_over!r}')


class RowWeights:
    """Weights by sample, from a tensor of the labels' shape or from one tensor for each batch.

    >>> weights = RowWeights([torch.ones(2, 3), torch.zeros(1, 4)])
    >>> weights.of(2, (1, 4)).tolist()
    [[0.0, 0.0, 0.0, 0.0]]

    Raises
    ------
    TypeError
        If they are neither.
    """

    def __init__(self, given: Any) -> None:
        parts = [given] if isinstance(given, Tensor) else given
        if not isinstance(parts, Sequence) or not all(
            isinstance(part, Tensor) and part.ndim and not part.is_complex() for part in parts
        ):
            raise TypeError(
                "expected row_weights as a tensor of the labels' shape, or a list of one for each "
                f"batch, got {given!r:.60}"
            )
        self._samples = [row.double() for part in parts for row in part.unbind(0)]

    def of(self, first: int, shape: tuple[int, ...]) -> Float[Tensor, "b ..."]:
        """The weights of a batch's rows, of a shape (b, …), from its first sample on.

        Raises
        ------
        ValueError
            If there are none, or not of that shape; if one is NaN, infinite or below 0.
        """
        found = self._samples[first : first + shape[0]]
        if len(found) < shape[0] or any(tuple(row.shape) != tuple(shape[1:]) for row in found):
            raise ValueError(
                f"expected row_weights of shape {shape} for the samples from {first}, got "
                f"{len(found)} of shape {tuple(found[0].shape) if found else ()}; they have the "
                "labels' shape, all samples in order"
            )
        weights = torch.stack(found)
        bad = ~(torch.isfinite(weights) & (weights >= 0)).reshape(len(weights), -1).all(dim=1)
        if bool(bad.any()):
            raise ValueError(
                "expected row_weights that are finite and at least 0, got "
                f"{float(weights.min()):.3g}, NaN or infinity at sample "
                f"{first + int(bad.nonzero()[0])}; leave rows out with weight 0"
            )
        return weights

    def require_samples(self, count: int) -> None:
        """See that there are weights for just so many samples.

        Raises
        ------
        ValueError
            If there are more: they are those of other data then.
        """
        if len(self._samples) != count:
            raise ValueError(
                f"expected row_weights for the {count} samples there are, got "
                f"{len(self._samples)}; they have the labels' shape, all samples in order"
            )


def normalised(
    scale: Float[Tensor, " R"],
    mass: Float[Tensor, " R"],
    sequences: Int[Tensor, " R"],
    mean_over: MeanOver,
) -> Float[Tensor, " R"]:
    """w_i: s_i/Σ m over all rows, or the mean over sequences of s_i/Σ m over each one's rows.

    Raises
    ------
    ValueError
        If nothing counts.
    """
    if not len(scale) or not float(mass.sum()) > 0 or not float(scale.sum()) > 0:
        raise ValueError(
            "expected a row that counts, but all of them are ignored or of weight 0; check the "
            "labels (ignore_index), row_weights and class weights"
        )
    if mean_over == "rows":
        return scale / mass.sum()
    _, index = sequences.unique(return_inverse=True)
    masses = mass.new_zeros(int(index.max()) + 1).index_add_(0, index, mass)
    counted = masses > 0
    return torch.where(counted[index], scale / masses[index], 0.0) / counted.sum()
