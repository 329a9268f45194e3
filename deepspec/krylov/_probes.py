"""Random probe vectors: the same numbers for one seed on every device and in every precision."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov._inner import inner
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.compression import Compression


def normal_vector(A: SymmetricOperator, seed: int, index: int) -> Float[Tensor, " p"]:
    """N(0, I_p), number ``index`` of a seed: drawn in float64 on the CPU, piece by piece.

    Other numbers for another dimension, so that a search in what a search has left over does not
    start from a vector that the first one used up.
    """
    state = np.random.SeedSequence([seed, index, dimension(A)]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state) >> 1)
    vector = torch.empty(A.size, dtype=A.dtype, device=A.device)
    length = 1 << 20
    for begin in range(0, A.size, length):
        piece = vector[begin : begin + length]
        piece.copy_(torch.randn(piece.shape[0], generator=generator, dtype=torch.float64))
    return vector


def unit_probe(A: SymmetricOperator, seed: int, index: int) -> Float[Tensor, " p"]:
    """A direction drawn uniformly from the unit sphere, off what a compression has removed.

    Raises
    ------
    ValueError
        If the compression leaves nothing.
    """
    vector = normal_vector(A, seed, index)
    if isinstance(A, Compression):
        if A.num_removed >= A.size:
            raise ValueError(
                f"expected an operator with something left in it, got a compression that removed "
                f"all of its {A.size} dimensions"
            )
        vector = A.restrict(A.restrict(vector))
    return vector.div_(inner(vector, vector) ** 0.5)


def dimension(A: SymmetricOperator) -> int:
    """How many eigenvalues of A mean something: p, less what a compression removed."""
    return A.size - (A.num_removed if isinstance(A, Compression) else 0)
