"""How much of the bulk of Hess goes with E: ‖P A P‖²_F off the outliers, for A = Hess and Hess − E.

Hess − E is G, whose energy follows from S without a product where S is formed. The others are
estimated with random signs z, E‖P A P z‖² = ‖P A P‖²_F, the same ones for every A, so that what
they get wrong they get wrong alike: the share is known long before the energies are.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.attribution.measurement import Measurement
from deepspec.attribution.nulls import shuffled_labels
from deepspec.attribution.seeding import stream
from deepspec.attribution.verdicts import Finding, judge
from deepspec.classifier.checks import evaluate
from deepspec.classifier.logit_function import LogitFunction
from deepspec.engine.autodiff import LogitGradient
from deepspec.operators import ColumnSpace, GaussNewton, SymmetricOperator
from deepspec.operators.hessian import SecondDerivative
from deepspec.problem import Problem

# Random signs, one vector after another, until the share is known to so much.
FEWEST_PROBES, MOST_PROBES, SHARE_ERROR = 2, 6, 0.02


class RelabelledResidual(SecondDerivative):
    """E as it would be under other labels: Σ_i w_i ⟨p_i − y_i', ∇²f_i⟩. For a null only."""

    def __init__(self, problem: Problem, labels: Int[Tensor, " n"]) -> None:
        super().__init__(problem)
        object.__setattr__(self, "others", labels)

    others: Int[Tensor, " n"]

    def logit_gradient(self, rows: slice, function: LogitFunction) -> LogitGradient:
        problem = self.problem
        criterion, width = problem.criterion, problem.num_classes
        outputs = problem.logits[rows] if problem.keeps_logits else evaluate(function).double()
        targets = criterion.prepared(self.others[rows], width, outputs.dtype)
        slopes = criterion.residual(outputs, targets) * problem.weights[rows, None]
        fixed = slopes.to(self.dtype)
        return lambda logits: fixed


def judge_bulk(
    measured: Measurement,
    problem: Problem,
    hessian: SymmetricOperator,
    outliers: Float[Tensor, "p k"],
    seen: Float[Tensor, "m k"],
) -> Finding:
    """The verdict on "the bulk of Hess comes from E" (Papyan 2020, §5.1).

    Parameters
    ----------
    outliers, seen
        The top eigenvectors U of Hess, orthonormal, and D U.
    """
    whole, without, relabelled = bulk_energies(measured, problem, hessian, outliers, seen)
    there = whole > 0
    return judge(
        "bulk of Hess",
        max(0.0, 1 - without / whole) if there else math.nan,
        math.nan,
        {"shuffled labels": (1 - relabelled / whole).clamp_min(0.0) if there else relabelled},
        present=there,
    )


def bulk_energies(
    measured: Measurement,
    problem: Problem,
    hessian: SymmetricOperator,
    outliers: Float[Tensor, "p k"],
    seen: Float[Tensor, "m k"],
) -> tuple[float, float, Float[Tensor, " b"]]:
    """‖P A P‖²_F for Hess, for Hess − E = G, and for Hess − E' with E' under shuffled labels.

    Where S is formed the second is exact, and what the probes get wrong of it is taken off the
    others too.
    """
    settings, space = measured.settings, ColumnSpace(outliers)
    null = [
        RelabelledResidual(problem, shuffled_labels(problem.labels, settings.seed, draw))
        for draw in range(settings.costly_draws)
    ]
    rows: list[Float[Tensor, " b+2"]] = []
    while len(rows) < MOST_PROBES and not _known(rows):
        generator = stream(settings.seed, "energies", len(rows))
        signs = torch.randint(0, 2, (problem.size,), generator=generator, dtype=torch.int8)
        probe = (2 * signs - 1).to(problem.device, problem.dtype)
        probe = probe - space @ probe
        of_hessian = hessian @ probe
        images = [of_hessian, GaussNewton(problem) @ probe]
        images += [of_hessian - residual @ probe for residual in null]
        rows.append(torch.stack([_square_off(space, image) for image in images]))
    whole, of_g, *found = torch.stack(rows).mean(dim=0).tolist()
    exact = energy_off(measured, seen)
    correction = exact - of_g if exact is not None else 0.0
    if whole + correction <= 0:
        correction = 0.0
    nulls = torch.tensor(found, dtype=torch.float64)
    return whole + correction, of_g + correction, (nulls + correction).clamp_min(0.0)


def _known(rows: list[Float[Tensor, " b+2"]]) -> bool:
    """Whether the standard error of the share removed is small, from each probe's own share."""
    if len(rows) < FEWEST_PROBES:
        return False
    energies = torch.stack(rows)
    shares = 1 - energies[:, 1] / energies[:, 0]  # NaN where there is no bulk, whatever the probe
    return not float(shares.std()) > SHARE_ERROR * math.sqrt(len(rows))


def _square_off(space: ColumnSpace, image: Float[Tensor, " p"]) -> Float[Tensor, ""]:
    """‖(I − U Uᵀ) x‖²; U takes next to nothing of the images of what is off it."""
    inside = (space.basis.T @ image).double().square().sum()
    return (image.double().square().sum() - inside).clamp_min(0.0).cpu()


def energy_off(measured: Measurement, seen: Float[Tensor, "m k"]) -> float | None:
    """‖P G P‖²_F off orthonormal columns U, from D U: tr G² − 2 tr UᵀG²U + tr (UᵀG U)²."""
    if not measured.exact:
        return None
    wide = seen.double()
    inner = wide.T @ wide
    squares = float((wide * measured.gram.times(wide)).sum())
    whole = float(measured.gram.eigenvalues.square().sum())
    return max(0.0, whole - 2 * squares + float(inner.square().sum()))
