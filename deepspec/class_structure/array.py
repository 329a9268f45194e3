"""One array behind every spectrum: weighted vectors with class structure."""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.arguments import is_one_of, shown
from deepspec.class_structure.cells import Cells, Convention, weigh_cells
from deepspec.class_structure.downdate import How, means_beyond_within
from deepspec.class_structure.gram import Gram, descending, form_gram, nonzero
from deepspec.class_structure.groups import Groups, as_grouping
from deepspec.class_structure.parts import PARTS, CellMeans, MeanPart, Part, part
from deepspec.class_structure.rows import GradientRows, Rows, TensorRows, cells_of
from deepspec.class_structure.two_way import TwoWayLayout, two_way_layout
from deepspec.operators import SymmetricOperator
from deepspec.operators.on_problem import require_problem
from deepspec.problem import Problem


class ClassArray:
    """Vectors with classes and weights, whose second moment is taken apart by class structure.

    Vectors v_{i,c'} of samples i of classes c(i) with weights w; V = Σ w v vᵀ.
    Papyan (2020) §1.7–1.10: gradients, backpropagated errors and features all are of this kind,
    and so are the embeddings of any model. V = V_class + V_cross + V_within + V_{c=c'} exactly,
    for any weights and any class sizes.

    Parameters
    ----------
    vectors
        (n, d), one vector a sample, or (n, C, d), one for each cross-class c'.
    labels
        (n,) classes from 0.
    weights
        (n,) or (n, C), at least 0; by default 1/n for each sample (and 1/(nC) with cross-classes).
        They are taken as they are: V is Σ w v vᵀ.

    Raises
    ------
    TypeError
        If something is no tensor, or of the wrong kind of numbers.
    ValueError
        If shapes do not fit, or numbers are not finite.

    >>> vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    >>> array = ClassArray(vectors, torch.tensor([0, 0, 1]))
    >>> array.eigenvalues("between_class").numpy().round(6)   # 2/3 of 2², 1/3 of 2²
    array([2.666667, 1.333333])
    >>> array.knock_out("between_class").numpy().round(6)     # scatter of 1 and 3 about 2
    array([0.666667])
    """

    rows: Rows
    cells: Cells

    def __init__(
        self,
        vectors: Float[Tensor, "n *C d"],
        labels: Int[Tensor, " n"],
        weights: Float[Tensor, "n *C"] | None = None,
    ) -> None:
        weights = _checked(vectors, labels, weights)
        shaped = vectors.detach() if vectors.ndim == 3 else vectors.detach()[:, None]
        log_weights = weights.double().reshape(shaped.shape[:2]).log()
        cross = vectors.ndim == 3
        classes = shaped.shape[1] if cross else int(labels.max()) + 1
        self.rows = TensorRows(shaped.flatten(0, 1), (0.5 * log_weights).exp().flatten())
        self.cells = weigh_cells(log_weights, labels, classes, vectors.dtype, cross=cross)

    @classmethod
    def of(cls, rows: Rows, cells: Cells) -> ClassArray:
        """An array of rows known by their products; ``cells`` says which row belongs where."""
        array = cls.__new__(cls)
        array.rows, array.cells = rows, cells
        return array

    def __repr__(self) -> str:
        n, columns = len(self.cells.labels), self.cells.share.shape[1]
        classes = len(self.cells.weights)
        kind = f"{n:,} samples × {columns} cross-classes" if columns > 1 else f"{n:,} samples"
        return f"ClassArray({kind} of {classes} classes, vectors of {self.rows.width:,})"

    # ---- the second moment and its parts ------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.cells.weights)

    @cached_property
    def second_moment(self) -> SymmetricOperator:
        """V = DᵀD (d × d), by products: G for gradients."""
        return self.rows.form(None)

    @cached_property
    def parts(self) -> dict[str, SymmetricOperator]:
        """V_P = DᵀPD (d × d) for each part, by products.

        All but the global mean, which lies inside the class means, add up to V.
        """
        return {name: self.rows.form(self.projector(name)) for name in PARTS}

    def projector(self, name: str) -> Part:
        """A part's projector P on the rows, which knows weights and labels only."""
        return part(self.cells, name)

    def relabelled(self, labels: Int[Tensor, " n"]) -> ClassArray:
        """The same vectors under other labels."""
        return ClassArray.of(self.rows, self.cells.relabelled(labels))

    # ---- exact spectra ------------------------------------------------------------------------

    @cached_property
    def gram(self) -> Gram:
        """S = D Dᵀ, formed once, in the smaller of the two spaces.

        Raises
        ------
        MemoryError
            If it does not fit; says how many rows would.
        """
        return form_gram(self.rows)

    def mean_gram(self, name: str = "means") -> Float[Tensor, "r r"]:
        """⟨√w m_k, √w m_l⟩ on an orthonormal basis of a part that is made of means."""
        chosen = self.projector(name)
        if not isinstance(chosen, MeanPart):
            raise ValueError(f"expected a part that is made of means, got {name!r}")
        return self.gram.inside(chosen.basis)

    def eigenvalues(self, part: str | None = None) -> Float[Tensor, " r"]:
        """Every eigenvalue of V, or of one part, that is not zero; descending, float64.

        Raises
        ------
        MemoryError
            If the Gram matrix does not fit.
        ValueError
            If there is no such part.
        """
        if part is None:
            return nonzero(self.gram.eigenvalues, self.rows.dtype)
        chosen = self.projector(part)
        if isinstance(chosen, MeanPart):
            return nonzero(descending(self.gram.inside(chosen.basis)), self.rows.dtype)
        return nonzero(self.gram.transformed(chosen.on_rows), self.rows.dtype)

    def knock_out(self, part: str, how: How = "subtraction") -> Float[Tensor, " r"]:
        """The eigenvalues of what is left without a part that are not zero; descending, float64.

        Papyan (2020), Definitions 3.1–3.3: by subtraction V − V_P, with the eigenvalues of
        (I − P) S (I − P); by projection V ⊘ V_P = (I − Π) V (I − Π), Π onto the range of V_P, with
        those of S − S E (EᵀS E)⁺ EᵀS, E a basis of P's range. A projection leaves at most as much.

        Raises
        ------
        MemoryError
            If the Gram matrix does not fit.
        ValueError
            If there is no such part, or ``how`` is neither of the two.
        """
        chosen = self.projector(part)
        if not is_one_of(how, ("subtraction", "projection")):
            raise ValueError(f'expected how="subtraction" or "projection", got {shown(how)}')
        if how == "subtraction":
            left = self.gram.transformed(lambda x: x - chosen.on_rows(x))
            return left[left > self.gram.rounding]
        if isinstance(chosen, MeanPart):
            left = self.gram.without_range(chosen.basis)
        else:
            left = means_beyond_within(self.gram, CellMeans(self.cells).basis)
        return left[left > self.gram.rounding]

    def two_way_layout(self) -> TwoWayLayout:
        """How the mean vectors of cells (c, c'), c' ≠ c, split into effects of c and of c'."""
        if self.cells.grouping is not None:
            raise ValueError(
                "expected each class by itself for a two-way layout, got groups; leave groups= out"
            )
        places = self.cells.places
        weights = self.cells.weights[places[:, 0], places[:, 1]]
        cells = [(c, other) for c, other in places.tolist()]
        return two_way_layout(self.mean_gram(), weights, cells)


def gradients(
    problem: Problem, convention: Convention = "jmlr2020", groups: Groups | None = None
) -> ClassArray:
    """The gradients of a classifier's loss under every label, as an array with class structure.

    Its rows are the extended gradients √w_{i,c'} g_{i,c'}, its second moment is G:
    g_{i,c'} = J_iᵀ(p_i − e_c') with w_{i,c'} = p_{i,c'}/n (Papyan 2020, eq. 6.2).

    Parameters
    ----------
    problem
        A net and its data.
    convention
        "jmlr2020" (Papyan 2020) or "icml2019" (Papyan 2019): which means are taken.
    groups
        Classes taken together, where there are very many: a tensor of each class's group, or lists
        of the classes in each. G is the same, class means are those of all classes of a group
        (Σ_c w_c g_c / Σ_c w_c), cross-class means those of c' ≠ c in a group, also the own one.
        See :func:`deepspec.class_structure.frequent_classes`. Where rows × classes exceed
        ``logit_memory``, parts and second moment are there as operators, and what works on rows
        is not.

    >>> model = torch.nn.Linear(2, 2).double()
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> array = gradients(Problem(model, (torch.eye(2).double(), torch.tensor([0, 1]))))
    >>> array.eigenvalues().numpy().round(9)
    array([0.75, 0.25])
    """
    require_problem(problem)
    problem.require_classes()
    grouping = None if groups is None else as_grouping(groups, problem.num_classes)
    cells = cells_of(problem, convention, grouping)
    rows = GradientRows(problem)
    return ClassArray.of(rows, cells)


def _checked(vectors: object, labels: object, weights: object) -> Float[Tensor, "n *C"]:
    """The weights, once everything fits together."""
    if not isinstance(vectors, Tensor) or not isinstance(labels, Tensor):
        raise TypeError(
            f"expected tensors of vectors and labels, got {type(vectors).__name__} and "
            f"{type(labels).__name__}; convert arrays with torch.as_tensor"
        )
    if vectors.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected float32 or float64 vectors, got {vectors.dtype}")
    if vectors.ndim not in (2, 3) or 0 in vectors.shape:
        raise ValueError(
            "expected vectors of shape (n, d), or (n, C, d) with one for each cross-class, got "
            f"{tuple(vectors.shape)}"
        )
    if labels.shape != vectors.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"expected {len(vectors)} whole labels of shape ({len(vectors)},), got "
            f"{tuple(labels.shape)} {labels.dtype}; one for each vector, classes from 0"
        )
    most = vectors.shape[1] if vectors.ndim == 3 else None
    if int(labels.min()) < 0 or (most is not None and int(labels.max()) >= most):
        raise ValueError(
            f"expected labels in 0..{(most or int(labels.max()) + 1) - 1}, got "
            f"{int(labels.min())}..{int(labels.max())}"
        )
    shape = vectors.shape[:-1]
    if weights is None:
        count = shape.numel()
        weights = torch.full(shape, 1.0 / count, dtype=torch.float64, device=vectors.device)
    if not isinstance(weights, Tensor) or weights.shape not in (shape, vectors.shape[:1]):
        got = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(f"expected weights of shape {tuple(shape)}, got {got}")
    if weights.shape != shape:
        weights = weights[:, None].expand(shape)
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
        raise ValueError("expected weights that are finite and at least 0")
    if not float(weights.sum()) > 0:
        raise ValueError("expected some weight above 0, but all are zero")
    if not bool(torch.isfinite(vectors).all()):
        raise ValueError("expected finite vectors, got NaN or infinity among them")
    return weights
