"""Exact spectra through the tangent kernel Θ = J Jᵀ."""

from deepspec.neural_tangent_kernel.kernel import TangentKernel, tangent_kernel
from deepspec.neural_tangent_kernel.spectrum import ExactSpectrum, exact_spectrum

__all__ = ["ExactSpectrum", "TangentKernel", "exact_spectrum", "tangent_kernel"]
