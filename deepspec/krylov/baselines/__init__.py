"""Methods of the papers and of other codes, kept to compare with: not for use."""

from deepspec.krylov.baselines.kernel_polynomial import (
    KernelPolynomialDensity,
    kernel_polynomial_density,
)
from deepspec.krylov.baselines.subspace import subspace_iteration

__all__ = ["KernelPolynomialDensity", "kernel_polynomial_density", "subspace_iteration"]
