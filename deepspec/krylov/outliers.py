"""How many eigenvalues are outliers, by a rule that says so in advance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_above, check_whole, is_one_of, shown
from deepspec.krylov._results import Eigenpairs
from deepspec.storage.display import Result


@dataclass(frozen=True, repr=False, kw_only=True)
class Outliers(Result):
    """How many eigenvalues stand apart, with the gap that says so.

    Attributes
    ----------
    count
        How many eigenvalues lie outside of the rest; 0 when no gap stands out.
    gap
        Between the last outlier and the first eigenvalue of the rest (the widest candidate's gap
        where ``count`` is 0).
    gap_error
        The sum of both residuals: the gap is known to that.
    score
        The gap, less its error, over the mean of the gaps that follow it.
    threshold
        What the score has to exceed.
    """

    count: int
    gap: float
    gap_error: float
    score: float
    threshold: float

    def _words(self) -> list[str]:
        gap = f"gap {self.gap:.3g} ± {self.gap_error:.1g}"
        return [f"{self.count} outliers", gap, f"score {self.score:.3g} against {self.threshold:g}"]


def count_outliers(
    pairs: Eigenpairs,
    which: Literal["largest", "smallest"] = "largest",
    *,
    threshold: float = 6.0,
    window: int = 10,
) -> Outliers:
    """Count the eigenvalues that stand apart from all others, beyond the most striking gap.

    With the values in order from the end inwards, gap j is λ_j − λ_{j+1}, and its score is
    (gap j − r_j − r_{j+1}) over the mean of the ``window`` gaps that follow (at least 5), r the
    residuals. The outliers are those before the gap of the largest score, if it exceeds
    ``threshold``. The edge of a random-matrix bulk without outliers scores above 6 in fewer than
    1 % of draws (Wigner and Wishart matrices, 15 to 30 eigenvalues, 300 draws each); a heavy tail
    scores above it often, because its largest values *are* apart: look at the score then, not at
    the count alone.

    Parameters
    ----------
    pairs
        At least 6 more than the outliers that are expected: C outliers, ask for k = C + 10.
    which
        Which end of the spectrum they come from.

    Raises
    ------
    ValueError
        If there are fewer than 7 values, ``which`` is unknown, ``threshold`` or ``window`` cannot
        be right, a value or residual is NaN or infinite, or the widest gap has fewer than 5 gaps
        after it to be compared with and stands out from all others before it.

    >>> import torch
    >>> values = torch.tensor([9.0, 8.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    >>> zeros = torch.zeros(9)
    >>> pairs = Eigenpairs(values=values, vectors=torch.eye(9), residuals=zeros, matvecs=0)
    >>> count_outliers(pairs).count
    2
    """
    if not is_one_of(which, ("largest", "smallest")):
        raise ValueError(f'expected which="largest" or which="smallest", got {shown(which)}')
    check_above(threshold, 0, "threshold")
    check_whole(window, 5, "window")
    values, residuals = pairs.values.double().cpu(), pairs.residuals.double().cpu()
    if values.shape[0] < 7:
        raise ValueError(
            f"expected at least 7 eigenvalues to tell a gap from the spacing, got "
            f"{values.shape[0]}; ask top_eigenpairs for more"
        )
    if not bool(torch.isfinite(values).all() & torch.isfinite(residuals).all()):
        raise ValueError(
            "expected finite eigenvalues and residuals, got NaN or infinity; look for them in the "
            "operator"
        )
    if which == "smallest":
        values, residuals = -values.flip(0), residuals.flip(0)
    return _widest(values, residuals, threshold, window)


def _widest(
    values: Float[Tensor, " k"], residuals: Float[Tensor, " k"], threshold: float, window: int
) -> Outliers:
    gaps = (values[:-1] - values[1:]).clamp_min(0)
    errors = residuals[:-1] + residuals[1:]
    best = Outliers(count=0, gap=0.0, gap_error=0.0, score=-math.inf, threshold=threshold)
    for place in range(len(gaps) - 5):
        gap, error = float(gaps[place]), float(errors[place])
        spacing = float(gaps[place + 1 : place + 1 + window].mean())
        rounding = 1e-15 * float(values.abs().max())
        score = (gap - error) / max(spacing, rounding, 1e-300)
        if score > best.score:
            best = Outliers(
                count=place + 1, gap=gap, gap_error=error, score=score, threshold=threshold
            )
    if best.score <= threshold:
        _check_late(gaps, errors, threshold)
    if best.score > threshold:
        return best
    return replace(best, count=0)


def _check_late(gaps: Tensor, errors: Tensor, threshold: float) -> None:
    """Raise where a gap that stands out has too few gaps after it to be a candidate."""
    place = len(gaps) - 5 + int(gaps[-5:].argmax())
    others = (gaps.sum() - gaps[place]) / (len(gaps) - 1)
    if float(gaps[place] - errors[place]) > threshold * float(others):
        raise ValueError(
            f"expected at least {place + 7} eigenvalues to judge the gap of {gaps[place]:.3g} "
            f"after the first {place + 1}, got {len(gaps) + 1}; ask top_eigenpairs for more"
        )
