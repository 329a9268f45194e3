"""The neural tangent kernel (NTK) Θ = J Jᵀ of all logits, by layers."""

from deepspec.neural_tangent_kernel.kernel import TangentKernel, tangent_kernel

__all__ = ["TangentKernel", "tangent_kernel"]
