"""Whether a linear classifier can separate some of the samples: then no finite one is optimal."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack


def partly_separable(
    features: Float[np.ndarray, "n r"], labels: Int[np.ndarray, " n"], num_classes: int
) -> bool:
    """Whether some W lowers no margin (w_y - w_c)ᵀx below zero and raises one above it.

    A linear programme: the largest sum of margins, each from 0 to 1. As W can be scaled, that is
    0 (not separable) or at least 1.

    Examples
    --------
    >>> ones = np.ones((3, 1))
    >>> partly_separable(ones, np.array([0, 0, 1]), 2), partly_separable(ones, np.zeros(3, int), 2)
    (False, True)
    """
    n, r = features.shape
    sample = np.repeat(np.arange(n), num_classes - 1)
    other = np.array([c for y in labels for c in range(num_classes) if c != y])
    entries = features[sample]
    row = np.repeat(np.arange(len(sample)), r)
    column = np.arange(r) * num_classes
    own = (column + labels[sample][:, None]).ravel()
    beside = (column + other[:, None]).ravel()
    values = np.concatenate([entries.ravel(), -entries.ravel()])
    places = (np.concatenate([row, row]), np.concatenate([own, beside]))
    margins = csr_array((values, places), shape=(len(sample), r * num_classes))
    found = linprog(
        -np.asarray(margins.sum(axis=0)).ravel(),
        A_ub=vstack([margins, -margins]),
        b_ub=np.concatenate([np.ones(len(sample)), np.zeros(len(sample))]),
        bounds=(None, None),
        method="highs",
    )
    return bool(found.status == 0 and -found.fun > 0.5)
