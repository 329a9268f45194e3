"""What every symmetric operator promises, in both precisions, a user's own included."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import deepspec
from deepspec.attribution.bulk_energy import RelabelledResidual
from deepspec.attribution.knockouts import SchurComplement
from deepspec.class_structure import parts
from deepspec.class_structure.rows import GradientRows, RowsGram
from deepspec.operators import (
    BlockDiagonal,
    ColumnSpace,
    Compression,
    KroneckerBasis,
    KroneckerProduct,
    KroneckerSum,
    LinearCombination,
    MatrixOperator,
    Projector,
    SymmetricOperator,
)
from deepspec.operators.factors import ThinFactor
from deepspec.operators.projectors import SumOfSpaces
from tests.cases import CASES

P = 12


def normal(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


class Ring(SymmetricOperator):
    """As a user writes one: second differences on a ring, with the constructor."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__(size, dtype, torch.device("cpu"))

    def _product(self, columns: Tensor) -> Tensor:
        return 2 * columns - columns.roll(1, 0) - columns.roll(-1, 0)


class Scaled(SymmetricOperator):
    """As a user writes one: by properties."""

    def __init__(self, diagonal: Tensor) -> None:
        self.diagonal = diagonal

    @property
    def size(self) -> int:
        return len(self.diagonal)

    @property
    def dtype(self) -> torch.dtype:
        return self.diagonal.dtype

    @property
    def device(self) -> torch.device:
        return self.diagonal.device

    def _product(self, columns: Tensor) -> Tensor:
        return self.diagonal[:, None] * columns


def table(dtype: torch.dtype) -> dict[str, SymmetricOperator]:
    model, features, labels = CASES[0].build()
    problem = deepspec.Problem(model, (features, labels), batch_size=4, dtype=dtype)
    G, classes = deepspec.GaussNewton(problem), deepspec.ClassStructure(problem)
    array = deepspec.gradients(problem)
    gram, cells = RowsGram(GradientRows(problem)), array.cells
    between = parts.BetweenClass(cells)
    basis = between.basis
    square = normal(P, P).to(dtype)
    matrix, ring = MatrixOperator(square + square.T), Ring(P, dtype)
    thin, side = ThinFactor(normal(2, 4, 5).to(dtype)), torch.eye(3, dtype=dtype)
    product = KroneckerProduct(square[:3, :3] + square[:3, :3].T, thin)
    axes = torch.linalg.qr(normal(4, 4, 6))[0].to(dtype)
    basis_of_outer_products = KroneckerBasis(side, axes, normal(3, 4, 8).to(dtype))
    three, two = ColumnSpace(normal(P, 3, 1).to(dtype)), ColumnSpace(normal(P, 2, 2).to(dtype))
    return {
        "matrix": matrix,
        "user's own": ring,
        "user's own by properties": Scaled(normal(P, 1, 3)[:, 0].to(dtype)),
        "user's combination": 2 * ring - matrix / 4 + ring.project_out(two),
        "user's compression": ring.project_out(three).project_out(two),
        "Kronecker product": product,
        "Kronecker sum": KroneckerSum([(side, thin), (side, axes.T @ axes)]),
        "Kronecker basis": basis_of_outer_products,
        "blocks": BlockDiagonal([product, ring, basis_of_outer_products]),
        "columns": three,
        "sum of spaces": SumOfSpaces(three, two),
        "Hess": deepspec.Hessian(problem),
        "E": deepspec.Residual(problem),
        "G": G,
        "G - class": G - classes.between_class,
        "Hess - G": deepspec.Hessian(problem) - G,
        "total": classes.total,
        **classes.named(),
        "class means": deepspec.class_structure.class_means(classes).projector(),
        "gradient gram": gram,
        "P class": between,
        "P cross": parts.CrossClass(cells),
        "P own": parts.OwnClass(cells),
        "P global": parts.GlobalMean(cells),
        "P within": parts.WithinClass(cells),
        "Schur": SchurComplement(gram, basis, gram @ basis.to(dtype)),
        "formed gram": array.gram,
        "embeddings": deepspec.ClassArray(normal(9, P).to(dtype), labels).second_moment,
        "relabelled": RelabelledResidual(problem, problem.labels.flip(0)),
    }


TABLES = {dtype: table(dtype) for dtype in (torch.float64, torch.float32)}
NAMED = [(name, dtype) for dtype in TABLES for name in TABLES[dtype]]


@pytest.fixture(params=NAMED, ids=lambda named: f"{named[0]}-{str(named[1])[6:]}")
def A(request: pytest.FixtureRequest) -> SymmetricOperator:
    name, dtype = request.param
    return TABLES[dtype][name]


def rounding(A: SymmetricOperator) -> float:
    return 200 * torch.finfo(A.dtype).eps


def columns_for(A: SymmetricOperator, count: int = 3) -> Tensor:
    return normal(A.size, count, 7).to(A.dtype)


def close(found: Tensor, expected: Tensor, A: SymmetricOperator, scale: Tensor) -> bool:
    return float((found - expected).abs().max()) <= rounding(A) * float(scale.abs().max()) + 1e-300


def test_products_are_symmetric_and_linear(A: SymmetricOperator) -> None:
    V = columns_for(A)
    W = A @ V
    size = float(W.norm() * V.norm()) + 1e-300
    assert abs(float(V[:, 0] @ W[:, 1] - V[:, 1] @ W[:, 0])) <= rounding(A) * size
    combined = A @ (2 * V[:, 0] - V[:, 1])
    assert float((combined - 2 * W[:, 0] + W[:, 1]).norm()) <= rounding(A) * size


def test_a_block_is_its_columns(A: SymmetricOperator) -> None:
    V = columns_for(A, 4)
    before, W = V.clone(), A @ V
    assert torch.equal(V, before)
    assert (W.shape, W.dtype, W.device) == (V.shape, A.dtype, A.device)
    assert close(W, torch.stack([A @ v.contiguous() for v in V.T], 1), A, W)
    assert close(A @ V.T.contiguous().T, W, A, W)
    assert (A @ V[:, :0]).shape == (A.size, 0)


def test_dense_and_scipy_are_the_same_matrix(A: SymmetricOperator) -> None:
    V, M = columns_for(A), A.to_dense()
    W = A @ V
    assert close(M @ V, W, A, 10 * torch.cat([W, M], dim=1))
    assert np.allclose(A.to_scipy() @ V.numpy(), W.numpy(), atol=50 * rounding(A) * M.abs().max())


def test_the_algebra_is_that_of_matrices(A: SymmetricOperator) -> None:
    V = columns_for(A)
    W = A @ V
    assert close((np.float64(2) * A - A / 2 + (-A)) @ V, 0.5 * W, A, 10 * W)
    assert close(sum([A, A]) @ V, 2 * W, A, 10 * W)
    added = ColumnSpace(columns_for(A, 2))
    # What a compression removed stays removed: the next one is off the sum of both ranges.
    space = SumOfSpaces(A.projector, added) if isinstance(A, Compression) else added
    off = V - space @ V
    expected = A @ off
    expected = expected - space @ expected
    assert close(A.project_out(added) @ V, expected, A, 100 * torch.cat([W, A @ off], dim=1))


def test_it_says_what_it_is(A: SymmetricOperator) -> None:
    assert A.fingerprint() == A.fingerprint()
    json.dumps(A.fingerprint())
    for one in (A, A - 2 * A, A.project_out(ColumnSpace(columns_for(A, 1)))):
        assert repr(one).startswith(f"<{A.size} × {A.size} ")
        assert repr(one).endswith(f", {str(A.dtype)[6:]} on cpu>")
        assert "\n" not in repr(one)
        assert len(repr(one)) < 150
        assert "object at" not in repr(one)


def test_a_projector_is_one(A: SymmetricOperator) -> None:
    if isinstance(A, Projector):
        W = A @ columns_for(A)
        assert float((A @ W - W).abs().max()) <= 1e3 * rounding(A)
        assert A.rank == round(float(A.to_dense().double().trace()))


def test_reprs_are_formulas() -> None:
    known = TABLES[torch.float64]
    G = known["G"]
    size = f"{G.size} × {G.size}"
    assert repr(G) == f"<{size} G, float64 on cpu>"
    assert repr(known["G - class"]) == f"<{size} G − G_class, float64 on cpu>"
    assert repr(2 * known["Hess"] - G) == f"<{size} 2·Hess − G, float64 on cpu>"
    axes = ColumnSpace(torch.eye(G.size, 3, dtype=torch.float64))
    assert repr(G.project_out(axes)) == f"<{size} G off 3 dimensions, float64 on cpu>"
    many = sum((k + 2) * known["matrix"] for k in range(40))
    assert repr(many).endswith("…, float64 on cpu>")


def test_a_users_own_operator_has_estimators_too() -> None:
    ring = Ring(P, torch.float64)
    assert abs(deepspec.trace(ring, 2 * P).value - 2 * P) < 1e-9
    top = deepspec.top_eigenpairs(2 * ring, 1)
    assert abs(float(top.values[0]) - 8) < 1e-9
    assert isinstance(ring.deflate(top), Compression)
    assert isinstance(deepspec.joined_spectrum(ring, 2, 8), deepspec.JoinedSpectrum)


@dataclass(frozen=True, eq=False, repr=False)
class Frozen(SymmetricOperator):
    """The constructor of the base class serves frozen dataclasses, too."""

    scale: float

    def __post_init__(self) -> None:
        super().__init__(3, torch.float64, torch.device("cpu"))

    def _product(self, columns: Tensor) -> Tensor:
        return self.scale * columns


def test_a_frozen_dataclass_may_be_an_operator() -> None:
    A = Frozen(2.0)
    assert repr(A) == "<3 × 3 Frozen, float64 on cpu>"
    assert torch.equal(A @ torch.ones(3).double(), 2 * torch.ones(3).double())


class Broken(SymmetricOperator):
    """Returns what it is told to."""

    def __init__(self, returned: Callable[[Tensor], object]) -> None:
        super().__init__(4, torch.float64, torch.device("cpu"))
        self.returned = returned

    def _product(self, columns: Tensor) -> Tensor:
        return self.returned(columns)


@pytest.mark.parametrize(
    ("returned", "error", "said"),
    [
        (lambda V: V.numpy(), TypeError, r"got ndarray; convert with torch\.from_numpy"),
        (lambda V: None, TypeError, "got NoneType; is there a return"),
        (lambda V: 3.0, TypeError, "to return a torch tensor, got float$"),
        (lambda V: V[:, 0], ValueError, r"columns of shape \(4, 1\), as it was given, got \(4,\)"),
        (lambda V: V[:2], ValueError, r"got \(2, 1\)"),
        (lambda V: V.float(), TypeError, r"got torch\.float32 on cpu; return image\.to"),
        (lambda V: V.to("meta"), TypeError, "on meta"),
    ],
)
def test_a_product_that_is_none_is_refused(
    returned: Callable[[Tensor], object], error: type[Exception], said: str
) -> None:
    A = Broken(returned)
    with pytest.raises(error, match=said):
        A @ torch.ones(4, dtype=torch.float64)
    with pytest.raises(error, match=r"expected Broken\._product to return"):
        deepspec.spectral_density(2 * A, 3)


def test_an_error_in_a_product_says_where_it_was() -> None:
    def fails(columns: Tensor) -> Tensor:
        raise KeyError("weights")

    with pytest.raises(KeyError) as caught:
        (2 * Broken(fails)) @ torch.ones(4, dtype=torch.float64)
    (note,) = caught.value.__notes__
    assert note.startswith("raised by Broken._product for columns of shape (4, 1), torch.float64")


@pytest.mark.parametrize(
    "estimate", [deepspec.trace, deepspec.spectral_density, deepspec.top_eigenpairs]
)
def test_products_that_are_not_finite_are_refused(estimate: Callable[..., object]) -> None:
    with pytest.raises(FloatingPointError, match="holds NaN or infinity"):
        estimate(Broken(lambda V: V * torch.nan), 4)


class Odd(SymmetricOperator):
    """Says of itself what it is told to."""

    size, dtype, device = 3, torch.float64, torch.device("cpu")  # type: ignore[assignment]

    def __init__(self, **said: object) -> None:
        self.__class__ = type("Odd", (Odd,), said)

    def _product(self, columns: Tensor) -> Tensor:
        return columns


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"size": 3.0}, TypeError, r"Odd\.size as an integer, got 3\.0"),
        ({"size": -1}, ValueError, r"Odd\.size of at least 0, got -1"),
        ({"size": 0}, ValueError, "at least one row, got <0 × 0 Odd"),
        ({"dtype": np.float64}, TypeError, r"floating-point dtype such as torch\.float64"),
        ({"dtype": torch.int64}, TypeError, r"floating-point dtype such as torch\.float64"),
        ({"device": "cpu"}, TypeError, r"wrap it as torch\.device\('cpu'\)"),
    ],
)
def test_estimators_read_what_an_operator_says_of_itself(
    said: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        deepspec.spectral_density(Odd(**said), 3)


def test_an_operator_that_says_nothing() -> None:
    class Silent(SymmetricOperator):
        def _product(self, columns: Tensor) -> Tensor:
            return columns

    with pytest.raises(TypeError, match="expected Silent to say its size, dtype and device"):
        deepspec.trace(Silent.__new__(Silent))


def test_bad_factors_terms_and_projectors() -> None:
    A = Ring(3, torch.float64)
    for bad in ("2", None, True, A, torch.ones(2)):
        with pytest.raises(TypeError, match="expected a number to multiply an operator by"):
            A * bad
    with pytest.raises(ValueError, match="expected a finite number"):
        A * float("nan")
    with pytest.raises(ZeroDivisionError, match="divisor other than 0"):
        A / 0
    with pytest.raises(TypeError, match=r"not symmetric; multiply as A @ \(B @ v\)"):
        A @ A
    with pytest.raises(TypeError, match="expected an operator to add, got int"):
        3 + A
    with pytest.raises(TypeError, match="at least one term"):
        LinearCombination()
    with pytest.raises(TypeError, match=r"expected a projector, got Tensor.*ColumnSpace"):
        A.project_out(torch.eye(3))
    with pytest.raises(TypeError, match=r"eigenpairs with \.vectors to deflate, got Tensor"):
        A.deflate(torch.eye(3))
    with pytest.raises(ValueError, match=r"projector of torch\.float64 on cpu, got torch\.float32"):
        A.project_out(ColumnSpace(torch.eye(3)))
    assert torch.equal((torch.tensor(2.0) * A).to_dense(), 2 * A.to_dense())


def test_bad_matrices_and_columns() -> None:
    with pytest.raises(TypeError, match=r"as a torch tensor, got ndarray; convert"):
        MatrixOperator(np.eye(2))
    with pytest.raises(TypeError, match=r"floating point, got torch\.int64"):
        MatrixOperator(torch.eye(2).long())
    with pytest.raises(ValueError, match=r"square matrix, got shape \(0, 0\)"):
        MatrixOperator(torch.ones(0, 0))
    with pytest.raises(ValueError, match="expected finite columns"):
        ColumnSpace(torch.full((3, 1), torch.nan))
