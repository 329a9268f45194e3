"""Class and cross-class structure of G: its parts as operators on the parameters."""

from __future__ import annotations

from functools import cached_property

import torch

from deepspec.class_structure.cells import Convention
from deepspec.class_structure.parts import part
from deepspec.class_structure.rows import GradientRows, SoftmaxDirections, cells_of
from deepspec.operators import PullbackOperator
from deepspec.operators.on_problem import require_problem
from deepspec.operators.pullback import combine
from deepspec.problem import Problem


class ClassStructure:
    """The four parts that a classifier's Gauss-Newton matrix is the sum of, each an operator.

    G = G_class + G_cross + G_within + G_{c=c'} (Papyan 2020, eq. 6.4).

    Exact for classes of any size, empty ones too. With ``convention="icml2019"`` the same
    four are G1, G2, G3 and G0 of Papyan (2019), eq. 28. A product with any of them, or with any
    sum or difference, costs one J v and one Jᵀ r.

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
        problem.require_classes()
        self.cells = cells_of(problem, convention)
        self._rows = GradientRows(problem)

    def __repr__(self) -> str:
        return f"ClassStructure({self.convention}, {self.problem!r})"

    @cached_property
    def directions(self) -> SoftmaxDirections:
        """The vectors whose means are taken: g_{i,c'}, or √p_{i,c'} g_{i,c'} (Papyan 2019)."""
        scale = torch.ones_like(self.problem.log_probabilities)
        if self.convention == "icml2019":
            scale = (0.5 * self.problem.log_probabilities).exp()
        return SoftmaxDirections(self.problem.probabilities, scale)

    def _part(self, name: str) -> PullbackOperator:
        found = self._rows.form(part(self.cells, name))
        assert isinstance(found, PullbackOperator)
        return found

    @cached_property
    def between_class(self) -> PullbackOperator:
        """G_class = Σ_c w_c g_c g_cᵀ, of rank at most C; G1 of Papyan (2019)."""
        return self._part("between_class")

    @cached_property
    def cross_class(self) -> PullbackOperator:
        """G_cross = Σ_c Σ_{c'≠c} w_{c,c'} (g_{c,c'} − g_c)(·)ᵀ, of rank at most C(C − 2); G2.

        The 2020 paper prints g_{c'} for g_c; with that the four parts would not sum to G.
        """
        return self._part("cross_class")

    @cached_property
    def within_class(self) -> PullbackOperator:
        """G_within = Σ w_{i,c'} (g_{i,c'} − g_{c,c'})(·)ᵀ; G3."""
        return self._part("within_class")

    @cached_property
    def own_class(self) -> PullbackOperator:
        """G_{c=c'} = Σ_c w_{c,c} g_{c,c} g_{c,c}ᵀ, of rank at most C; G0."""
        return self._part("own_class")

    @cached_property
    def means(self) -> PullbackOperator:
        """G_class + G_cross + G_{c=c'} = Σ w_{c,c'} g_{c,c'} g_{c,c'}ᵀ; G1+2 of the 2019 paper."""
        return self._part("means")

    @property
    def total(self) -> PullbackOperator:
        """The sum of all four parts, one pass; equal to G."""
        return PullbackOperator(
            self.problem, combine((1.0, self.means.kernel), (1.0, self.within_class.kernel))
        )

    def named(self) -> dict[str, PullbackOperator]:
        """The four parts by name, in the order of eq. 6.4."""
        return {
            "between_class": self.between_class,
            "cross_class": self.cross_class,
            "within_class": self.within_class,
            "own_class": self.own_class,
        }
