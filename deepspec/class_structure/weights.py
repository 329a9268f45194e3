"""Class and cross-class structure: G taken apart into the parts that cause its spectrum.

Every part is JᵀKJ with K acting on logits (docs/theory.md §1): a product is one J v and
one Jᵀ r, and none of the C² mean gradients, vectors of length p, is ever formed.

Both papers average the same directions J_iᵀ(p_i − e_c') under different weights:

============  ===============================  ==========  ====================
convention    vectors                          weights     source
============  ===============================  ==========  ====================
``jmlr2020``  g_{i,c'} = J_iᵀ(p_i − e_c')       p_{i,c'}/n  [002] §6
``icml2019``  δ_{i,c'} = √p_{i,c'} g_{i,c'}     1/n         [000] eq. 13, 21–28
============  ===============================  ==========  ====================

([000] writes J_iᵀ(e_c' − p_i); the sign cancels in every second moment.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.classifier.softmax import mean_minus_each
from deepspec.operators.on_problem import require_problem
from deepspec.operators.pullback import LogitForm, PullbackOperator, combine
from deepspec.problem import Problem

Convention = Literal["jmlr2020", "icml2019"]


@dataclass(frozen=True, eq=False)
class CrossClassWeights:
    """Who counts how much in which mean, from the logits alone; everything in float64.

    ``vector_scale[i, c'] · J_iᵀ(p_i − e_c')`` is the vector of sample i and cross-class c'. The
    mean over the samples of class c has total weight ``cell[c, c']`` and shares
    ``share[i, c']``; the mean over c' ≠ c of those has total weight ``row[c]`` and shares
    ``row_share[c, c']``. Shares of an empty class are zero; those of a probability that
    underflows are right, because they are formed from logarithms.
    """

    probabilities: Float[Tensor, "n C"]
    labels: Int[Tensor, " n"]
    vector_scale: Float[Tensor, "n C"]
    share: Float[Tensor, "n C"]
    cell: Float[Tensor, "C C"]
    row: Float[Tensor, " C"]
    row_share: Float[Tensor, "C C"]

    def differences(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """⟨vector_{i,c'}, v⟩ from u = J v: scale · (⟨p_i, u_i⟩ − u_{i,c'})."""
        return self.vector_scale[:, :, None] * mean_minus_each(self.probabilities, columns)

    def coefficients(self, amounts: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """r with Jᵀ r = Σ_{i,c'} amounts_{i,c'} · vector_{i,c'}: the transpose of the above."""
        scaled = self.vector_scale[:, :, None] * amounts
        return self.probabilities[:, :, None] * scaled.sum(dim=1, keepdim=True) - scaled

    def cell_means(self, values: Float[Tensor, "n C k"]) -> Float[Tensor, "C C k"]:
        """Means over the samples of class c, for each c and c'."""
        means = values.new_zeros(*self.cell.shape, values.shape[2])
        return means.index_add_(0, self.labels, self.share[:, :, None] * values)

    def row_means(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "C k"]:
        """Means over c' ≠ c of the means of cells."""
        return (self.row_share[:, :, None] * cells).sum(dim=1)

    def spread(self, cells: Float[Tensor, "C C k"]) -> Float[Tensor, "n C k"]:
        """The transpose of :meth:`cell_means`: what each sample has of its class's amounts."""
        return self.share[:, :, None] * cells[self.labels]


def cross_class_weights(
    log_probabilities: Float[Tensor, "n C"],
    labels: Int[Tensor, " n"],
    convention: Convention = "jmlr2020",
) -> CrossClassWeights:
    """The weights of either convention ([002] §6; [000] eq. 21–26), for classes of any size.

    With unequal classes [000]'s averages over classes become averages weighted by class size
    (its footnote 1), which is what weight 1/n a sample gives.

    Raises
    ------
    ValueError
        If the convention is neither of the two.
    """
    n, classes = log_probabilities.shape
    if convention == "jmlr2020":
        log_weights = log_probabilities - math.log(n)
        scale = torch.ones_like(log_probabilities)
    elif convention == "icml2019":
        log_weights = torch.full_like(log_probabilities, -math.log(n))
        scale = (0.5 * log_probabilities).exp()
    else:
        raise ValueError(f'expected convention "jmlr2020" or "icml2019", got {convention!r}')
    index = labels[:, None].expand(n, classes)
    empty = torch.full((classes, classes), -torch.inf, dtype=torch.float64, device=labels.device)
    largest = empty.scatter_reduce(0, index, log_weights, "amax")
    centred = (log_weights - largest[labels]).exp()
    total = torch.zeros_like(empty).scatter_add(0, index, centred)
    share = centred / total[labels]
    log_cell = torch.where(total > 0, largest + total.log(), empty)
    own = torch.eye(classes, dtype=torch.bool, device=labels.device)
    log_others = log_cell.masked_fill(own, -torch.inf)
    log_row = torch.logsumexp(log_others, dim=1, keepdim=True)
    row_share = torch.where(log_row > -torch.inf, (log_others - log_row).exp(), 0.0)
    return CrossClassWeights(
        probabilities=log_probabilities.exp(),
        labels=labels,
        vector_scale=scale,
        share=share,
        cell=log_cell.exp(),
        row=log_row[:, 0].exp(),
        row_share=row_share,
    )


@dataclass(frozen=True, eq=False)
class StructureKernel(LogitForm):
    """What the four kernels share: from u to a's and back, around :meth:`amounts`."""

    weights: CrossClassWeights
    words: ClassVar[str]

    def __call__(self, columns: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        differences = self.weights.differences(columns)
        return self.weights.coefficients(self.amounts(differences))

    def amounts(self, differences: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        """a_{i,c'}, the amount of vector (i, c') in the product, from d_{i,c'} = ⟨vector, v⟩."""
        return self.weights.spread(self.cell_amounts(self.weights.cell_means(differences)))

    def cell_amounts(self, means: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        """The amount of each cell's mean vector, from the means' products with v."""
        raise TypeError(f"{type(self).__name__} is not made of means")

    def describe(self) -> str:
        scaled = bool((self.weights.vector_scale != 1).any())
        return f"{self.words}[icml2019]" if scaled else self.words


class BetweenClassKernel(StructureKernel):
    """G_class = Σ_c w_c g_c g_cᵀ ([002] eq. 6.4); G1 of [000] eq. 28."""

    words = "G_class"

    def cell_amounts(self, means: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        weights = self.weights
        amount = weights.row[:, None] * weights.row_means(means)
        return weights.row_share[:, :, None] * amount[:, None]


class CrossClassKernel(StructureKernel):
    """G_cross = Σ_c Σ_{c'≠c} w_{c,c'} (g_{c,c'} − g_c)(g_{c,c'} − g_c)ᵀ; G2 of [000] eq. 28.

    [002] prints g_{c'} for g_c; with that the four parts would not sum to G.
    """

    words = "G_cross"

    def cell_amounts(self, means: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        weights = self.weights
        deviations = means - weights.row_means(means)[:, None]
        return (weights.row[:, None] * weights.row_share)[:, :, None] * deviations


class OwnClassKernel(StructureKernel):
    """G_{c=c'} = Σ_c w_{c,c} g_{c,c} g_{c,c}ᵀ ([002] eq. 6.4); G0 of [000] eq. 28."""

    words = "G_own"

    def cell_amounts(self, means: Float[Tensor, "C C k"]) -> Float[Tensor, "C C k"]:
        return torch.diag(self.weights.cell.diagonal())[:, :, None] * means


class WithinClassKernel(StructureKernel):
    """G_within = Σ w_{i,c'} (g_{i,c'} − g_{c,c'})(·)ᵀ ([002] eq. 6.3); G3 of [000] eq. 23."""

    words = "G_within"

    def amounts(self, differences: Float[Tensor, "n C k"]) -> Float[Tensor, "n C k"]:
        weights = self.weights
        deviations = differences - weights.cell_means(differences)[weights.labels]
        return (weights.share * weights.cell[weights.labels])[:, :, None] * deviations


class ClassStructure:
    """G = G_class + G_cross + G_within + G_{c=c'} ([002] eq. 6.4), each an operator.

    Exact for classes of any size, empty ones too. With ``convention="icml2019"`` the same
    four are G1, G2, G3 and G0 of [000] eq. 28.

    >>> model = torch.nn.Linear(4, 3, dtype=torch.float64)
    >>> problem = Problem(model, (torch.eye(4).double(), torch.tensor([0, 0, 1, 2])))
    >>> parts = ClassStructure(problem)
    >>> v = torch.ones(problem.size, dtype=torch.float64)
    >>> from deepspec.operators import GaussNewton
    >>> bool(torch.allclose(parts.total @ v, GaussNewton(problem) @ v))
    True
    """

    def __init__(self, problem: Problem, convention: Convention = "jmlr2020") -> None:
        require_problem(problem)
        self.problem = problem
        self.convention = convention
        self.weights = cross_class_weights(problem.log_probabilities, problem.labels, convention)

    @cached_property
    def between_class(self) -> PullbackOperator:
        """G_class, of rank at most C."""
        return PullbackOperator(self.problem, BetweenClassKernel(self.weights))

    @cached_property
    def cross_class(self) -> PullbackOperator:
        """G_cross, of rank at most C(C − 2)."""
        return PullbackOperator(self.problem, CrossClassKernel(self.weights))

    @cached_property
    def within_class(self) -> PullbackOperator:
        """G_within."""
        return PullbackOperator(self.problem, WithinClassKernel(self.weights))

    @cached_property
    def own_class(self) -> PullbackOperator:
        """G_{c=c'}, of rank at most C."""
        return PullbackOperator(self.problem, OwnClassKernel(self.weights))

    @cached_property
    def means(self) -> PullbackOperator:
        """G_class + G_cross + G_{c=c'} = Σ w_{c,c'} g_{c,c'} g_{c,c'}ᵀ; G1+2 of [000] eq. 23."""
        kernels = (BetweenClassKernel, CrossClassKernel, OwnClassKernel)
        return PullbackOperator(
            self.problem, combine(*((1.0, kernel(self.weights)) for kernel in kernels))
        )

    @property
    def total(self) -> PullbackOperator:
        """The sum of all four parts, one pass; equal to G."""
        return PullbackOperator(
            self.problem, combine((1.0, self.means.kernel), (1.0, self.within_class.kernel))
        )

    def named(self) -> dict[str, PullbackOperator]:
        """The four parts by name, in the order of [002] eq. 6.4."""
        return {
            "between_class": self.between_class,
            "cross_class": self.cross_class,
            "within_class": self.within_class,
            "own_class": self.own_class,
        }
