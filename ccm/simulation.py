"""Level 4: one simulated data set, its fitted classifier, and the groups of its FIM's spectrum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import ArpackError, eigsh

from ccm.fisher import complements, empirical_fim, fim_operator, fim_trace
from ccm.logistic import ConvergenceError, fit_logistic
from ccm.model import CanonicalClassificationModel, Seed, as_count, as_generator
from ccm.spectrum import Spectrum
from ccm.symmetric import as_alpha, multiplicities, symmetric_probabilities

DENSE_LIMIT = 2500  # D·C up to which all eigenvalues cost less than the leading ones by Lanczos
MEMORY_LIMIT = 4 * 2**30  # bytes that matrices or Lanczos vectors may take


def _is_dense(size: int, count: int) -> bool:
    return size <= DENSE_LIMIT or count > size // 2


def check_memory(size: int, count: int) -> None:
    """That ``count`` leading eigenvalues of a FIM of order ``size`` fit, before any work.

    All eigenvalues take the matrix and a copy; the leading k take 2k + 1 Lanczos vectors.

    Raises
    ------
    ValueError
        If they take more than 4 GiB.

    Examples
    --------
    >>> check_memory(20_000, 90)
    """
    needed = 8 * size * (2 * size if _is_dense(size, count) else 2 * count + 1)
    if needed > MEMORY_LIMIT:
        raise ValueError(
            f"the {count} leading eigenvalues of a FIM of order D·C = {size} take "
            f"{needed / 2**30:.3g} GiB, above {MEMORY_LIMIT / 2**30:g} GiB; at this order at most "
            f"{(MEMORY_LIMIT // (8 * size) - 1) // 2} fit. Groups need C(C-1) of them: take "
            "fewer classes, or a lower dim"
        )


def leading_eigenvalues(
    X: Float[np.ndarray, "n D"], probabilities: Float[np.ndarray, "n C"], count: int
) -> Float[np.ndarray, " k"]:
    """The largest eigenvalues of the empirical FIM, descending; dense or by Lanczos, by size.

    What is below rounding beside the trace is zero: a FIM has no negative eigenvalue.

    Raises
    ------
    TypeError, ValueError
        If X or the probabilities are bad, ``count`` is not an integer from 1 to D·C, or the
        work takes more than 4 GiB.
    ConvergenceError
        If Lanczos does not converge.

    Examples
    --------
    >>> leading_eigenvalues(np.array([[2.0]]), np.array([[0.5, 0.5]]), 1)
    array([2.])
    """
    G = fim_operator(X, probabilities)
    size = G.shape[0]
    if as_count(count, "count", 1) > size:
        raise ValueError(f"count must be from 1 to D·C = {size}, got {count}")
    check_memory(size, count)
    trace = fim_trace(X, probabilities)
    if trace < np.finfo(float).tiny:  # all samples are certain
        return np.zeros(count)
    if _is_dense(size, count):
        values = np.linalg.eigvalsh(empirical_fim(X, probabilities))[::-1][:count]
    else:
        start = np.random.default_rng(0).standard_normal(size)  # fixed: runs are reproducible
        try:  # of trace one, because ARPACK's tolerance is absolute for small matrices
            scaled = eigsh(G * (1 / trace), k=count, v0=start, return_eigenvectors=False)
        except ArpackError as error:
            raise ConvergenceError(
                f"ARPACK did not find the {count} leading eigenvalues of order {size} ({error}); "
                f"with D·C up to {DENSE_LIMIT} all are computed without it"
            ) from error
        values = np.sort(scaled)[::-1] * trace
    return np.where(values > _rounding(size, trace), values, 0.0)


def _rounding(size: int, trace: float) -> float:
    """What eigenvalues of a PSD matrix, and sums of them, may be off by."""
    return size * float(np.finfo(float).eps) * trace


@dataclass(frozen=True)
class GroupMeans:
    """Mean eigenvalue of each group, by rank; NaN for a group without eigenvalues.

    From the top: the first ``outliers`` (C for symmetric probabilities, C-1 at an optimum), the
    mini-bulk up to rank C(C-1), and (D-C)(C-1) of the bulk. This is what the eigenvalues alone
    can tell, and theory and simulation are grouped alike. Where a group is absorbed by the bulk
    (or, at level 3, part of it lies below the bulk), its ranks hold eigenvalues of the bulk.
    """

    outliers: float
    mini_bulk: float
    bulk: float


def _mean(values: Float[np.ndarray, " k"]) -> float:
    """NaN for no values; a value that repeats is its own mean to the last digit."""
    return float(values[0] + (values - values[0]).mean()) if values.size else math.nan


def _check_groups(dim: int, num_classes: int, outliers: int) -> int:
    """C(C-1), if the model can be grouped so."""
    signal = num_classes * (num_classes - 1)
    if dim < num_classes or not 1 <= outliers <= signal:
        raise ValueError(
            f"groups need D ≥ C and 1 to C(C-1) = {signal} outliers, got D={dim}, "
            f"C={num_classes} and {outliers} outliers"
        )
    return signal


def group_means(
    X: Float[np.ndarray, "n D"], probabilities: Float[np.ndarray, "n C"], outliers: int
) -> GroupMeans:
    """The empirical FIM's eigenvalues in groups by rank; see :class:`GroupMeans`.

    Ranks need the C(C-1) leading eigenvalues; what is left of the trace is the bulk, or zero
    where that is below rounding beside the trace.

    Raises
    ------
    ValueError
        If X or the probabilities are bad, D < C, ``outliers`` is not from 1 to C(C-1), or the
        work takes more than 4 GiB.
    ConvergenceError
        If Lanczos does not converge.

    Examples
    --------
    >>> group_means(np.array([[2.0, 0.0]]), np.array([[0.5, 0.5]]), outliers=1)
    GroupMeans(outliers=2.0, mini_bulk=0.0, bulk=nan)
    """
    C, D = np.shape(probabilities)[1], np.shape(X)[1]
    signal = _check_groups(D, C, outliers)
    needed = signal if D > C else outliers  # without a bulk, the trace gives the mini-bulk
    leading = leading_eigenvalues(X, probabilities, needed)
    trace = fim_trace(X, probabilities)
    left = trace - float(leading.sum())
    rest = left if left > _rounding(D * C, trace) else 0.0
    bulk_count, mini_bulk_count = multiplicities(D, C)["bulk"], signal - outliers
    if bulk_count:
        mini_bulk, bulk = _mean(leading[outliers:]), rest / bulk_count
    else:
        mini_bulk, bulk = rest / mini_bulk_count if mini_bulk_count else math.nan, math.nan
    return GroupMeans(_mean(leading[:outliers]), mini_bulk, bulk)


def spectrum_group_means(
    spectrum: Spectrum, model: CanonicalClassificationModel, outliers: int
) -> GroupMeans:
    """A theory's eigenvalues, grouped by rank like simulated ones.

    Raises
    ------
    ValueError
        If ``outliers`` is not from 1 to C(C-1), or the spectrum has not D·C eigenvalues.

    Examples
    --------
    >>> from ccm.symmetric import symmetric_spectrum
    >>> model = CanonicalClassificationModel(6, 3, 2.0)
    >>> groups = spectrum_group_means(symmetric_spectrum(model, 0.5), model, outliers=3)
    >>> groups.outliers, round(groups.bulk, 12)
    (0.8125, 0.3125)
    """
    D, C = model.dim, model.num_classes
    signal = _check_groups(D, C, outliers)
    if spectrum.size != model.size:
        raise ValueError(
            f"the spectrum has {spectrum.size} eigenvalues, but CCM({D}, {C}) has {model.size}"
        )
    values = spectrum.eigenvalues[: signal + multiplicities(D, C)["bulk"]]
    return GroupMeans(*(_mean(part) for part in np.split(values, [outliers, signal])))


@dataclass(frozen=True)
class Simulation:
    """One draw of N samples a class: three classifiers' spectra, and how well the fitted one does.

    ``symmetric`` is the FIM with Papyan (2020)'s symmetric probabilities at ``alpha`` (C outliers);
    ``bayes`` and ``fitted`` are at the Bayes and the fitted classifier (C-1 outliers).
    ``fitted_alpha`` is 1 - mean p_true on the training samples; ``test_error`` is measured on
    as many fresh samples; error rates are shares.
    """

    alpha: float
    symmetric: GroupMeans
    bayes: GroupMeans
    fitted: GroupMeans
    fitted_alpha: float
    train_error: float
    test_error: float


def simulate(
    model: CanonicalClassificationModel,
    per_class: int,
    seed: Seed = 0,
    alpha: float | None = None,
    weight_decay: float = 1e-4,
    *,
    rng: Seed | None = None,
) -> Simulation:
    """Sample, fit, and form the FIM; docs/theory.md §2, level 4.

    Parameters
    ----------
    model, per_class, seed
        CCM(D, C) at SNR t, N ≥ 1, and an integer or a numpy Generator.
    alpha
        Of the symmetric probabilities; by default that of the fitted classifier.
    weight_decay
        Of the fit; 0 asks for the maximum-likelihood classifier, if there is one.
    rng
        The seed, by its former name.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range; ``SeparableDataError`` (a ValueError) if the samples
        are separable and there is no weight decay.
    ConvergenceError
        If the fit or Lanczos does not converge.

    Examples
    --------
    >>> result = simulate(CanonicalClassificationModel(6, 3, 2.0), per_class=500, seed=0)
    >>> abs(result.test_error - CanonicalClassificationModel(6, 3, 2.0).bayes_error()) < 0.03
    True
    """
    per_class = as_count(per_class, "per_class", 1)
    C = model.num_classes
    if alpha is not None:
        alpha = as_alpha(C, alpha)
    # Before the fit, which is most of the work.
    check_memory(model.size, C * (C - 1) if model.dim > C else C)
    generator = as_generator(seed, rng)
    X, y = model.sample(per_class, generator)
    fresh_X, fresh_y = model.sample(per_class, generator)
    fit = fit_logistic(X, y, weight_decay=weight_decay, num_classes=C)
    fitted = fit.probabilities(X)
    fitted_alpha = float(complements(fitted)[np.arange(y.size), y].mean())
    # At no signal a fit may do a little worse than guessing by its own account.
    used = min(fitted_alpha, 1 - 1 / C) if alpha is None else alpha
    return Simulation(
        alpha=used,
        symmetric=group_means(X, symmetric_probabilities(C, used)[y], outliers=C),
        bayes=group_means(X, model.bayes_probabilities(X), outliers=C - 1),
        fitted=group_means(X, fitted, outliers=C - 1),
        fitted_alpha=fitted_alpha,
        train_error=fit.error(X, y),
        test_error=fit.error(fresh_X, fresh_y),
    )
