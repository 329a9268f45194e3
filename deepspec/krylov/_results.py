"""A few eigenvalues with their eigenvectors, and how well they are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.storage.display import Drawable, Result, Table, Tabular


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Eigenpairs(Result, Tabular, Drawable):
    """A few eigenvalues with their eigenvectors, and how well each of them is known.

    Attributes
    ----------
    values
        Descending, whichever end of the spectrum they are from.
    vectors
        Orthonormal columns, in the order of the values.
    residuals
        ‖A v − λ v‖ for each: an eigenvalue of A lies no further from λ than this. At least
        10 ε ‖A‖, which is what the products' rounding may hide.
    matvecs
        How many products with A they took.
    miss_probability
        A bound on the probability that an eigenvalue that belongs here was missed (another copy
        of a repeated one, say): see :func:`top_eigenpairs`. Small where a gap follows the pairs;
        1 where none does, as inside a bulk: that says that nothing was shown, not that
        something is missing. NaN where nothing is known.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "p k"]
    residuals: Float[Tensor, " k"]
    matvecs: int
    miss_probability: float = math.nan

    @classmethod
    def exact(cls, values: Float[Tensor, " k"], vectors: Float[Tensor, "p k"]) -> Eigenpairs:
        """Pairs of a matrix that is at hand: known to rounding, at no matvec.

        >>> import torch
        >>> Eigenpairs.exact(torch.tensor([2.0]), torch.eye(3)[:, :1])
        Eigenpairs(1 of 3 eigenvalues from 2 down to 2, residuals up to 2.4e-06, 0 matvecs)
        """
        size = float(values.abs().max()) if len(values) else 0.0
        residuals = torch.full_like(values, 10 * torch.finfo(vectors.dtype).eps * size)
        return cls(values=values, vectors=vectors, residuals=residuals, matvecs=0)

    def _words(self) -> list[str]:
        count = len(self.values)
        known = "" if math.isnan(self.miss_probability) else f"{self.miss_probability:.2g}"
        words = [f"{count} of {self.vectors.shape[0]:,} eigenvalues"]
        if count:
            words[0] += f" from {float(self.values[0]):.4g} down to {float(self.values[-1]):.4g}"
            words.append(f"residuals up to {float(self.residuals.max()):.2g}")
        words.append(f"{self.matvecs:,} matvecs")
        return [*words, f"one more missed with probability below {known}"] if known else words

    def _table(self) -> Table:
        return {"eigenvalue": self.values, "residual": self.residuals}


class NotConverged(RuntimeError):
    """The error of a search that ran out of products; its ``pairs`` are what there was.

    >>> import torch
    >>> pairs = Eigenpairs.exact(torch.tensor([2.0]), torch.eye(3)[:, :1])
    >>> NotConverged("expected more matvecs", pairs).pairs.values
    tensor([2.])
    """

    def __init__(self, message: str, pairs: Eigenpairs) -> None:
        super().__init__(message)
        self.pairs = pairs
