"""Every nonzero eigenvalue of an operator JᵀKJ, from the tangent kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure import MeansProjector
from deepspec.memory import free_memory
from deepspec.neural_tangent_kernel.kernel import (
    TangentKernel,
    positive_factor,
    require_memory,
    tangent_kernel,
)
from deepspec.neural_tangent_kernel.square_roots import half
from deepspec.operators import Compression, Projector, PullbackOperator, SymmetricOperator
from deepspec.operators.projectors import range_basis
from deepspec.problem import Problem
from deepspec.storage.checkpoint import load_state, save_state

COLUMNS_AT_ONCE = 256
KIND = "exact spectrum"


@dataclass(frozen=True)
class ExactSpectrum:
    """All eigenvalues of a p × p matrix.

    Attributes
    ----------
    eigenvalues
        Those that are not zero, descending, float64.
    zeros
        How many are zero: p less the others. Below nC ε of the largest is zero, ε the
        precision of the problem.
    operator
        What the spectrum is of.
    """

    eigenvalues: Float[Tensor, " r"]
    zeros: int
    operator: str = ""

    @property
    def size(self) -> int:
        """p."""
        return len(self.eigenvalues) + self.zeros

    def save(self, folder: str | Path) -> None:
        """Write a JSON manifest and the arrays (safetensors) into a folder."""
        manifest = {"kind": KIND, "zeros": self.zeros, "operator": self.operator}
        save_state(Path(folder), manifest, {"eigenvalues": self.eigenvalues})

    @classmethod
    def load(cls, folder: str | Path) -> ExactSpectrum:
        """Read what :meth:`save` wrote, onto the CPU.

        Raises
        ------
        ValueError
            If the folder holds something else.
        """
        manifest, arrays = load_state(Path(folder))
        if manifest.get("kind") != KIND:
            raise ValueError(f"expected an {KIND} in {folder}, found {manifest.get('kind')}")
        return cls(arrays["eigenvalues"], manifest["zeros"], manifest["operator"])


def exact_spectrum(A: SymmetricOperator, kernel: TangentKernel | None = None) -> ExactSpectrum:
    """Every eigenvalue of JᵀKJ, from those of LᵀΘL (K = L Lᵀ) or of FᵀKF (Θ = F Fᵀ).

    docs/theory.md §1, "Exact spectra". A is G, a part of the class structure, any sum, difference
    or multiple of them, or one of these with a subspace projected out: with an orthonormal basis V
    of that subspace, Θ becomes Θ − (J V)(J V)ᵀ, and nothing else changes.

    Parameters
    ----------
    A
        The operator.
    kernel
        Its problem's :func:`tangent_kernel`; by default computed now, and kept for the next
        operator of the same problem.

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
    root = half(operator.kernel)
    # Beside Θ: what LᵀΘ and LᵀΘL take, or F, K F and FᵀKF; and the eigenvalue solver's own.
    matrices = (0 if kernel else 1.25) + (3 if root else 4)
    require_memory(problem, matrices, free_memory(problem.device))
    if kernel is None:
        kernel = tangent_kernel(problem)
    if kernel.fingerprint != problem.fingerprint():
        raise ValueError(
            "expected the tangent kernel of the operator's problem, got that of another; "
            "call tangent_kernel(A.problem)"
        )
    theta, factor = kernel.matrix, None
    for projector in projectors:
        removed = _pushed(problem, projector, kernel).to(theta.dtype)
        theta = theta - removed @ removed.T
    description = A.describe()
    if root is not None and root.rows(problem.num_samples, problem.num_classes) <= 2 * len(theta):
        left = _applied(root, problem, theta)
        small = _applied(root, problem, left.T)
    else:
        factor = positive_factor(theta) if projectors else kernel.factor
        small = factor.T @ _applied(operator.kernel, problem, factor).view(factor.shape)
    values = torch.linalg.eigvalsh((small + small.T) / 2).double().flip(0)
    level = len(theta) * torch.finfo(theta.dtype).eps * values.abs().amax()
    nonzero = values[values.abs() > level]
    return ExactSpectrum(nonzero, problem.size - len(nonzero), description)


def _applied(
    work: Callable[[Tensor], Tensor], problem: Problem, columns: Float[Tensor, "nC k"]
) -> Float[Tensor, "r k"]:
    """A map of logit space, in float64, on columns of a matrix."""
    shape = (problem.num_samples, problem.num_classes, -1)
    parts = [
        work(part.double().reshape(shape)).flatten(0, -2).to(columns.dtype)
        for part in columns.split(COLUMNS_AT_ONCE, dim=1)
    ]
    return torch.cat(parts, dim=1)


def _pushed(problem: Problem, projector: Projector, kernel: TangentKernel) -> Float[Tensor, "nC r"]:
    """J V for an orthonormal basis V of the projector's range."""
    if isinstance(projector, MeansProjector) and projector.problem is problem:
        return kernel.matrix.double() @ projector.kernel.basis().flatten(0, 1)
    return problem.engine.jvp(range_basis(projector)).flatten(0, 1)
