"""Class means, cross-class deviations and cell means, and what is known of them from their Gram."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.arguments import shown
from deepspec.class_structure.gram_of_means import HasMatrix, mean_gram, pulled
from deepspec.class_structure.mean_columns import MeanColumns
from deepspec.class_structure.mean_projector import MeansProjector
from deepspec.class_structure.operators import ClassStructure


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Means:
    """r mean vectors m_k of the class structure with weights w_k: Σ_k w_k m_k m_kᵀ, by its Gram.

    Attributes
    ----------
    structure
        The class structure they belong to.
    name
        Which means they are.
    index
        Each mean's (c, c'), or (c,) for class means. Classes without samples have no means.
    weights
        w_k, (r,). A weight may underflow to zero; the mean itself is then still right.
    columns
        Each mean as Jᵀ of a column of logit space.
    plain_gram
        (r, r), float64: ⟨m_k, m_l⟩, without weights; distances between means are
        ``G.diag()[:, None] - 2 * G + G.diag()``.

    >>> model = torch.nn.Linear(1, 2).double()
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> from deepspec.problem import Problem
    >>> data = (torch.zeros(2, 1).double(), torch.tensor([0, 1]))
    >>> means = cell_means(ClassStructure(Problem(model, data)))
    >>> means.eigenvalues().round(decimals=9)[0]  # every g is ±(1/2, -1/2), every weight 1/4
    tensor(0.5000, dtype=torch.float64)
    """

    structure: ClassStructure
    name: str
    index: tuple[tuple[int, ...], ...]
    weights: Float[Tensor, " r"]
    columns: MeanColumns
    plain_gram: Float[Tensor, "r r"]

    def __repr__(self) -> str:
        return f"Means({len(self.index):,} {self.name}, vectors of {self.structure.problem.size:,})"

    @property
    def gram(self) -> Float[Tensor, "r r"]:
        """⟨√w_k m_k, √w_l m_l⟩: its nonzero eigenvalues are those of Σ_k w_k m_k m_kᵀ."""
        root = self.weights.sqrt()
        return torch.outer(root, root) * self.plain_gram

    def eigenvalues(self) -> Float[Tensor, " r"]:
        """All r eigenvalues of the Gram, descending; those of the operator, and zeros."""
        return torch.linalg.eigvalsh(self.gram).flip(0)

    def eigenvectors(self, k: int) -> Float[Tensor, "p k"]:
        """The k top eigenvectors of Σ_k w_k m_k m_kᵀ, orthonormal: k pulls Jᵀ r.

        Raises
        ------
        ValueError
            If k is not between 1 and the number of eigenvalues above rounding.
        """
        values, vectors = torch.linalg.eigh(self.gram)
        values, vectors = values.flip(0), vectors.flip(1)
        problem = self.structure.problem
        level = 10 * len(values) * torch.finfo(problem.precision).eps * values[0].clamp(min=0.0)
        available = int((values > level).sum())
        if not 1 <= k <= available:
            raise ValueError(f"expected 1 to {available} eigenvectors (the rank), got {k}")
        amounts = self.weights.sqrt()[:, None] * vectors[:, :k] / values[:k].sqrt()
        pulled_back = problem.engine.vjp(self.columns(amounts))
        orthonormal, triangular = torch.linalg.qr(pulled_back.double())
        return (orthonormal * triangular.diagonal().sign()).to(problem.dtype)

    def vectors(self) -> Float[Tensor, "p r"]:
        """√w_k m_k as columns: an array of p × r numbers, here because it was asked for."""
        problem = self.structure.problem
        blocks = list(self.columns.blocks())
        basis = pulled(problem, blocks, problem.space.names)
        result = torch.zeros(problem.size, len(self.index), dtype=problem.dtype)
        result = result.to(problem.device)
        start = 0
        for block in blocks:
            weighted = block.mixing * self.weights[block.members].sqrt()
            rows = basis[start : start + block.rank]
            result[:, block.members] = rows.T @ weighted.to(problem.dtype)
            start += block.rank
        return result

    def projector(self) -> MeansProjector:
        """The orthogonal projector onto the span of the means, for ``A.project_out``.

        In O(p) memory, two products with J each time; its rank is decided on the Gram of the
        means' directions, so that a short mean counts like a long one.
        """
        return MeansProjector(
            self.structure.problem, self.columns, self.plain_gram, self.weights, self.name
        )


def cell_means(structure: ClassStructure, kernel: HasMatrix | None = None) -> Means:
    """All g_{c,c'} with weights w_{c,c'}: the eigenvalues of G_class + G_cross + G_{c=c'}.

    Papyan (2020) §6; with ``convention="icml2019"`` G1+2 of Papyan (2019) eq. 23. The
    matching operator is ``structure.means``.

    Parameters
    ----------
    structure
        Which problem, and which of the two conventions.
    kernel
        The problem's :func:`deepspec.tangent_kernel` if it is at hand: the Gram is then taken
        from it where that is cheaper than backward passes.
    """
    cells = _cells(structure)
    weights = structure.cells.weights[cells[:, 0], cells[:, 1]]
    mix = _one_hot(structure, cells[:, 1])
    return _family(structure, "cell means", cells, weights, mix, kernel)


def own_class_means(structure: ClassStructure, kernel: HasMatrix | None = None) -> Means:
    """The C means g_{c,c} with weights w_{c,c}: the eigenvalues of G_{c=c'} (Papyan 2020, §6).

    Parameters as for :func:`cell_means`. The matching operator is ``structure.own_class``.
    """
    rows = _present(structure)
    weights = structure.cells.weights[rows, rows]
    cells = torch.stack([rows, rows], dim=1)
    return _family(structure, "own-class means", cells, weights, _one_hot(structure, rows), kernel)


def class_means(structure: ClassStructure, kernel: HasMatrix | None = None) -> Means:
    """The C means g_c with weights w_c: the eigenvalues of G_class (Papyan 2020, eq. 6.4).

    Parameters as for :func:`cell_means`. The matching operator is ``structure.between_class``.

    With one sample x = 2 of class 0 and p = (½, ½): w_0 = ½, g_0 = 2 (½, −½).

    >>> from deepspec.problem import Problem
    >>> net = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(net.weight)
    >>> data = torch.full((1, 1), 2.0, dtype=torch.float64), torch.tensor([0])
    >>> round(float(class_means(ClassStructure(Problem(net, data))).eigenvalues()[0]), 9)
    1.0
    """
    rows = _present(structure)
    weights, mix = structure.cells.row[rows], structure.cells.row_share[rows]
    return _family(structure, "class means", rows[:, None], weights, mix, kernel)


def cross_class_deviations(structure: ClassStructure, kernel: HasMatrix | None = None) -> Means:
    """The C(C − 1) deviations g_{c,c'} − g_c, c' ≠ c, with weights w_{c,c'}: those of G_cross.

    Parameters as for :func:`cell_means`. The matching operator is ``structure.cross_class``.

    With two classes g_c is the one g_{c,c'} there is, so nothing deviates:

    >>> from deepspec.problem import Problem
    >>> net = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)
    >>> data = torch.full((1, 1), 2.0, dtype=torch.float64), torch.tensor([0])
    >>> structure = ClassStructure(Problem(net, data))
    >>> float(cross_class_deviations(structure).eigenvalues().abs().max())
    0.0
    """
    cells = _cells(structure)
    cells = cells[cells[:, 0] != cells[:, 1]]
    weights = structure.cells.weights[cells[:, 0], cells[:, 1]]
    mix = _one_hot(structure, cells[:, 1]) - structure.cells.row_share[cells[:, 0]]
    return _family(structure, "cross-class deviations", cells, weights, mix, kernel)


def _present(structure: ClassStructure) -> Int[Tensor, " k"]:
    """The classes that have samples."""
    if not isinstance(structure, ClassStructure):
        raise TypeError(
            f"expected a deepspec.ClassStructure, got {shown(structure)}; make one with "
            "deepspec.ClassStructure(problem)"
        )
    return (structure.problem.class_counts > 0).nonzero()[:, 0]


def _cells(structure: ClassStructure) -> Int[Tensor, "r 2"]:
    """(c, c') for every class c that has samples and every c'."""
    present = _present(structure)
    classes = torch.arange(structure.problem.num_classes, device=present.device)
    return torch.cartesian_prod(present, classes)


def _one_hot(structure: ClassStructure, columns: Int[Tensor, " r"]) -> Float[Tensor, "r C"]:
    return torch.nn.functional.one_hot(columns, structure.problem.num_classes).double()


def _family(
    structure: ClassStructure,
    name: str,
    index: Int[Tensor, "r d"],
    weights: Float[Tensor, " r"],
    mix: Float[Tensor, "r C"],
    kernel: HasMatrix | None,
) -> Means:
    columns = MeanColumns(structure.directions, structure.cells, index[:, 0], mix)
    gram = mean_gram(structure.problem, columns, kernel)
    pairs = tuple(tuple(pair) for pair in index.tolist())
    return Means(
        structure=structure,
        name=name,
        index=pairs,
        weights=weights,
        columns=columns,
        plain_gram=gram,
    )
