"""The table's rows of simulated spectra: groups by rank, and their noise over draws."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ccm.explore.levels import Row
from ccm.explore.state import ViewState
from ccm.symmetric import multiplicities


def simulated_rows(draws: list[Float[np.ndarray, " k"]], state: ViewState) -> list[Row]:
    """A row for each group of the first draw, with the standard deviation over all of them.

    Examples
    --------
    >>> state = ViewState(dim=2, num_classes=2)
    >>> for row in simulated_rows([np.array([3.0, 1.0, 0, 0]), np.array([4.0, 0, 0, 0])], state):
    ...     print(row.group, row.eigenvalue, round(row.deviation, 3))
    outliers 2.0 0.0
    """
    rows: list[Row] = []
    start = 0
    for group, count in multiplicities(state.dim, state.num_classes).items():
        if draws and count and group != "null":
            parts = [draw[start : start + count] for draw in draws]
            means = [float(part.mean()) for part in parts]
            rows.append(
                Row(
                    level="4",
                    group=group,
                    eigenvalue=means[0],
                    low=float(parts[0][-1]),
                    high=float(parts[0][0]),
                    multiplicity=count,
                    deviation=float(np.std(means, ddof=1)) if len(draws) > 1 else None,
                )
            )
        start += count
    return rows
