"""The Fisher information of a linear classifier on samples, dense and matrix-free.

For logits f = W x the derivative by θ = vec(W) (by columns) is x ⊗ I, so

    G = (1/n) Σ_i x_i x_iᵀ ⊗ (diag p_i - p_i p_iᵀ),          Papyan (2020) §8.1

and G v needs only logit-sized arrays: with V the (D, C) array of v, u = X V, then
r_i = p_i ∘ u_i - p_i ⟨p_i, u_i⟩ and G v = Xᵀ r / n. Index (d, c) of θ is d·C + c.

Where a sample is nearly certain of its class m, G is of the size of 1 - p_m, which the number
p_m no longer holds. So 1 - p_m is summed from the other probabilities (:func:`complements`), and
logits are taken relative to class m (:func:`relative_logits`), which changes no product, since
U_i 1 = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator

# Maps logit directions u_i to the coefficients r_i of x_i ⊗ I; both (n, C, k). Linear, symmetric.
Kernel = Callable[[Float[np.ndarray, "n C k"]], Float[np.ndarray, "n C k"]]


def as_design(X: object) -> Float[np.ndarray, "n D"]:
    """X as a finite float array (n, D) with at least one sample.

    Raises
    ------
    ValueError
        If it is not two-dimensional, is empty, or holds NaN or infinity.

    Examples
    --------
    >>> as_design([[1, 2]]).shape
    (1, 2)
    """
    array = np.asarray(X, dtype=float)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"X must be an (n, D) array with n, D ≥ 1, got shape {array.shape}")
    if not np.isfinite(array).all():
        sample = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(f"X must be finite, but sample {sample} holds NaN or infinity")
    return array


def as_probabilities(probabilities: object, samples: int) -> Float[np.ndarray, "n C"]:
    """Rows of probabilities, one a sample, checked.

    Raises
    ------
    ValueError
        If the shape is not (n, C) with C ≥ 2, or a row has a negative or NaN entry or does not
        sum to one within 1e-6.

    Examples
    --------
    >>> as_probabilities([[0.25, 0.75]], samples=1)
    array([[0.25, 0.75]])
    """
    array = np.asarray(probabilities, dtype=float)
    if array.ndim != 2 or array.shape[0] != samples or array.shape[1] < 2:
        raise ValueError(
            f"probabilities must have shape ({samples}, C), C ≥ 2: one row a sample of X; "
            f"got {array.shape}"
        )
    bad = ~((array >= 0).all(axis=1) & (np.abs(array.sum(axis=1) - 1) <= 1e-6))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"probabilities must be non-negative and sum to one in each row, but row {row} is "
            f"{array[row]}; of logits take the softmax, of counts the shares"
        )
    return array


def complements(p: Float[np.ndarray, "n C"]) -> Float[np.ndarray, "n C"]:
    """1 - p, where p is the largest of its row as the sum of the others: no digit is lost.

    Examples
    --------
    >>> complements(np.array([[1.0, 1e-30]]))
    array([[1.e-30, 1.e+00]])
    """
    top = p.argmax(axis=1)[:, None]
    others = p.copy()
    np.put_along_axis(others, top, 0.0, axis=1)
    result = 1 - p
    np.put_along_axis(result, top, others.sum(axis=1, keepdims=True), axis=1)
    return result


def relative_logits(
    u: Float[np.ndarray, "n C k"], p: Float[np.ndarray, "n C"]
) -> Float[np.ndarray, "n C k"]:
    """Logits less those of each sample's most probable class, so that ⟨p, u⟩ keeps its digits.

    Examples
    --------
    >>> relative_logits(np.array([[[3.0], [5.0]]]), np.array([[0.9, 0.1]])).ravel()
    array([0., 2.])
    """
    return u - np.take_along_axis(u, p.argmax(axis=1)[:, None, None], axis=1)


class LogitSpaceOperator(LinearOperator):
    """JᵀKJ with J_i = x_iᵀ ⊗ I: a symmetric (DC, DC) operator with a kernel K in logit space.

    A SciPy LinearOperator, so ``A @ v``, ``scipy.sparse.linalg.eigsh(A)`` and sums work. One
    product costs two multiplications with X, in O(n C + D C) memory.
    """

    def __init__(self, X: Float[np.ndarray, "n D"], num_classes: int, kernel: Kernel) -> None:
        self.X = X
        self.num_classes = num_classes
        self.kernel = kernel
        size = X.shape[1] * num_classes
        super().__init__(np.dtype(float), (size, size))

    def _matmat(self, V: Float[np.ndarray, "DC k"]) -> Float[np.ndarray, "DC k"]:
        D, C = self.X.shape[1], self.num_classes
        k = V.shape[1]
        u = (self.X @ V.reshape(D, C * k)).reshape(-1, C, k)
        return (self.X.T @ self.kernel(u).reshape(-1, C * k)).reshape(D * C, k)

    def _matvec(self, v: Float[np.ndarray, " DC"]) -> Float[np.ndarray, " DC"]:
        return self._matmat(np.reshape(v, (-1, 1)))[:, 0]

    def _adjoint(self) -> LogitSpaceOperator:
        return self

    def to_dense(self) -> Float[np.ndarray, "DC DC"]:
        """The matrix, by its action on the identity; for small D·C.

        Examples
        --------
        >>> fim_operator(np.array([[2.0]]), np.array([[0.5, 0.5]])).to_dense()
        array([[ 1., -1.],
               [-1.,  1.]])
        """
        return self._matmat(np.eye(self.shape[0]))


def fim_operator(
    X: Float[np.ndarray, "n D"], probabilities: Float[np.ndarray, "n C"]
) -> LogitSpaceOperator:
    """The empirical FIM as an operator that is never formed; Papyan (2020) §8.1.

    Raises
    ------
    ValueError
        If X is not a finite (n, D) array or the probabilities are not rows that sum to one.

    Examples
    --------
    >>> G = fim_operator(np.array([[2.0]]), np.array([[0.5, 0.5]]))
    >>> G @ np.array([1.0, 0.0])
    array([ 1., -1.])
    """
    X = as_design(X)
    p = as_probabilities(probabilities, len(X))

    def kernel(u: Float[np.ndarray, "n C k"]) -> Float[np.ndarray, "n C k"]:
        pu = p[:, :, None] * relative_logits(u, p)
        return (pu - p[:, :, None] * pu.sum(axis=1, keepdims=True)) / len(X)

    return LogitSpaceOperator(X, p.shape[1], kernel)


def empirical_fim(
    X: Float[np.ndarray, "n D"], probabilities: Float[np.ndarray, "n C"]
) -> Float[np.ndarray, "DC DC"]:
    """G = (1/n) Σ_i x_i x_iᵀ ⊗ (diag p_i - p_i p_iᵀ) as a dense matrix; Papyan (2020) §8.1.

    Memory (DC)² floats: beyond D·C of some thousands use :func:`fim_operator`.

    Raises
    ------
    ValueError
        If X is not a finite (n, D) array or the probabilities are not rows that sum to one.

    Examples
    --------
    >>> empirical_fim(np.array([[2.0]]), np.array([[0.5, 0.5]]))
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    X = as_design(X)
    p = as_probabilities(probabilities, len(X))
    D, C = X.shape[1], p.shape[1]
    without = complements(p)
    fim = np.empty((D, C, D, C))
    for a in range(C):
        for b in range(a, C):
            weight = p[:, a] * (without[:, a] if a == b else -p[:, b]) / len(X)
            block = (X * weight[:, None]).T @ X
            fim[:, a, :, b] = block
            fim[:, b, :, a] = block
    return fim.reshape(D * C, D * C)


def fim_trace(X: Float[np.ndarray, "n D"], probabilities: Float[np.ndarray, "n C"]) -> float:
    """tr G = (1/n) Σ_i |x_i|² (1 - |p_i|²), without G.

    Raises
    ------
    ValueError
        As :func:`fim_operator`.

    Examples
    --------
    >>> fim_trace(np.array([[2.0]]), np.array([[0.5, 0.5]]))
    2.0
    """
    X = as_design(X)
    p = as_probabilities(probabilities, len(X))
    return float(np.mean((X**2).sum(axis=1) * (p * complements(p)).sum(axis=1)))
