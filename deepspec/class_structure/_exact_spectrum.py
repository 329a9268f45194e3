"""Every nonzero eigenvalue of an operator JᵀKJ, from the tangent kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import shown
from deepspec.class_structure.gram import Gram, MatrixGram, descending, nonzero
from deepspec.class_structure.mean_projector import MeansProjector
from deepspec.class_structure.parts import MeanPart, Part
from deepspec.class_structure.rows import GradientRows, PartForm
from deepspec.neural_tangent_kernel.kernel import (
    TangentKernel,
    positive_factor,
    require_memory,
    tangent_kernel,
)
from deepspec.operators import (
    Compression,
    LogitForm,
    Projector,
    PullbackOperator,
    SymmetricOperator,
)
from deepspec.operators.projectors import range_basis
from deepspec.operators.pullback import FormCombination, LossHessian
from deepspec.problem import Problem
from deepspec.storage.display import Drawable, Result, Table, Tabular

COLUMNS_AT_ONCE = 256


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ExactSpectrum(Result, Tabular, Drawable):
    """All eigenvalues of a matrix, and how many of them are zero.

    Attributes
    ----------
    eigenvalues
        Those that are not zero, descending, float64.
    zeros
        How many are zero: p less the others. Below nC ε of the largest is zero, ε the
        precision of the problem.
    operator
        What the spectrum is of.

    >>> found = ExactSpectrum(eigenvalues=torch.tensor([3.0, 1.0]), zeros=2, operator="G")
    >>> found.size
    4
    """

    eigenvalues: Float[Tensor, " r"]
    zeros: int
    operator: str = ""

    @property
    def size(self) -> int:
        """p."""
        return len(self.eigenvalues) + self.zeros

    def _words(self) -> list[str]:
        values = self.eigenvalues
        words = [f"{len(values):,} nonzero eigenvalues of {self.operator or 'an operator'}"]
        if len(values):
            words[0] += f" from {float(values[0]):.4g} down to {float(values[-1]):.4g}"
        return [*words, f"{self.zeros:,} zeros"]

    def _table(self) -> Table:
        return {"eigenvalue": self.eigenvalues}


def exact_spectrum(A: SymmetricOperator, kernel: TangentKernel | None = None) -> ExactSpectrum:
    """Compute every eigenvalue of the Gauss-Newton matrix, a part of it, or a sum of these.

    Those of any JᵀKJ, through the tangent kernel Θ = J Jᵀ (docs/theory.md §1,
    "Exact spectra"). With S = LᵀΘL, K = L M Lᵀ and M a sum of projectors, the
    eigenvalues are those of M½ S M½; for any other K those of FᵀKF, Θ = F Fᵀ. A is G, a part of
    the class structure, any sum, difference or multiple of them, or one of these with a subspace
    projected out: with an orthonormal basis V of that subspace, Θ becomes Θ − (J V)(J V)ᵀ, and
    nothing else changes.

    Parameters
    ----------
    A
        The operator.
    kernel
        Its problem's :func:`tangent_kernel`, to be held for several operators of the same problem;
        by default computed now.

    Raises
    ------
    TypeError
        If A is not of the form JᵀKJ, as the Hessian is not.
    ValueError
        If ``kernel`` is of another problem.
    MemoryError
        If nC × nC matrices do not fit; says how many samples would.

    >>> from deepspec.operators import GaussNewton
    >>> model = torch.nn.Linear(2, 2).double()
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> problem = Problem(model, (torch.eye(2).double(), torch.tensor([0, 1])))
    >>> spectrum = exact_spectrum(GaussNewton(problem))
    >>> spectrum.eigenvalues.numpy().round(9), spectrum.zeros
    (array([0.75, 0.25]), 4)
    """
    operator, projectors = (A.operator, (A.projector,)) if isinstance(A, Compression) else (A, ())
    if not isinstance(operator, PullbackOperator):
        raise TypeError(
            "expected an operator JᵀKJ (G, a part of ClassStructure, a combination of these, or "
            f"one with a subspace projected out), got {type(operator).__name__}; use "
            "spectral_density or top_eigenpairs for others"
        )
    problem = operator.problem
    if kernel is not None and not isinstance(kernel, TangentKernel):
        raise TypeError(
            f"expected what deepspec.tangent_kernel(problem) returned, got {shown(kernel)}"
        )
    if kernel is not None and kernel.fingerprint != problem.fingerprint():
        raise ValueError(
            "expected the tangent kernel of the operator's problem, got that of another; "
            "call tangent_kernel(A.problem)"
        )
    # Beside Θ: S or Θ's factor, its image, their product, and the eigenvalue solver's own.
    require_memory(problem, (0 if kernel else 1.25) + 4, problem.engine.free_memory())
    kernel = kernel or tangent_kernel(problem)
    rows = GradientRows(problem)
    theta = kernel.matrix
    for projector in projectors:
        removed = _pushed(problem, projector, kernel).to(theta.dtype)
        theta = theta - removed @ removed.T
    terms = _on_rows(operator.kernel)
    if terms is None:
        factor = positive_factor(theta) if projectors else kernel.factor
        values = descending(factor.T @ _applied(operator.kernel, problem, factor))
    else:
        values = _of_rows(MatrixGram(rows.conjugate(theta), problem.dtype), terms)
    values = nonzero(values, theta.dtype)
    zeros = problem.size - len(values)
    return ExactSpectrum(eigenvalues=values, zeros=zeros, operator=A.describe())


def _on_rows(form: LogitForm) -> list[tuple[float, Part | None]] | None:
    """Σ a P with K = L (Σ a P) Lᵀ, ``None`` for I; or no list, for a form of another kind."""
    terms = form.terms if isinstance(form, FormCombination) else ((1.0, form),)
    found: list[tuple[float, Part | None]] = []
    for factor, term in terms:
        if isinstance(term, PartForm):
            found.append((factor, term.part))
        elif isinstance(term, LossHessian):
            found.append((factor, None))
        else:
            return None
    return found


def _of_rows(gram: Gram, terms: list[tuple[float, Part | None]]) -> Float[Tensor, " r"]:
    """The eigenvalues of DᵀMD, M = Σ a P."""

    def form(columns: Tensor) -> Tensor:
        total = torch.zeros_like(columns)
        for factor, projector in terms:
            total.add_(columns if projector is None else projector.on_rows(columns), alpha=factor)
        return total

    factor, part = terms[0]
    if len(terms) == 1 and isinstance(part, MeanPart):
        values = factor * descending(gram.inside(part.basis))
        return values.sort(descending=True).values
    # A projector is its own square root, and so is I − P.
    idempotent = terms == [(1.0, terms[0][1])] or (
        len(terms) == 2
        and sorted(factor for factor, _ in terms) == [-1.0, 1.0]
        and next(p for factor, p in terms if factor == 1.0) is None
    )
    return gram.transformed(form) if idempotent else gram.congruent(form)


def _applied(
    form: LogitForm, problem: Problem, columns: Float[Tensor, "nC k"]
) -> Float[Tensor, "nC k"]:
    """K times columns of a matrix, in float64 inside."""
    shape = (problem.num_rows, problem.num_classes, -1)
    parts = [
        form(part.double().reshape(shape)).flatten(0, -2).to(columns.dtype)
        for part in columns.split(COLUMNS_AT_ONCE, dim=1)
    ]
    return torch.cat(parts, dim=1)


def _pushed(problem: Problem, projector: Projector, kernel: TangentKernel) -> Float[Tensor, "nC r"]:
    """J V for an orthonormal basis V of the projector's range."""
    if isinstance(projector, MeansProjector) and projector.problem is problem:
        return kernel.matrix.double() @ projector.kernel.basis().flatten(0, 1)
    return problem.engine.jvp(range_basis(projector)).flatten(0, 1)
