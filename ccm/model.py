"""The canonical classification model: Gaussian classes around orthogonal means."""

from __future__ import annotations

import math
import numbers
import operator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from ccm.softmax_moments import largest_coordinate_error, softmax_moment


def as_count(value: object, name: str, least: int) -> int:
    """The value as an int of at least ``least``.

    Raises
    ------
    TypeError
        If the value is not an integer (a float or a bool is not).
    ValueError
        If it is too small.

    Examples
    --------
    >>> as_count(np.int64(3), "num_classes", 2)
    3
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
    count = operator.index(value)
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return count


def as_real(value: object, name: str) -> float:
    """The value as a float.

    Raises
    ------
    TypeError
        If the value is not a real number (a string or a bool is not).
    ValueError
        If it is an integer too large for a float.

    Examples
    --------
    >>> as_real(np.float32(0.5), "snr")
    0.5
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name} must be within the range of floats, got {value}") from error


Seed = int | np.random.Generator


def as_generator(seed: Seed, rng: Seed | None = None) -> np.random.Generator:
    """A numpy Generator from a Generator (returned as it is) or from a seed.

    ``rng`` is the argument's former name; where it is given, it counts.

    Raises
    ------
    TypeError
        If neither came: there is no hidden global seed.

    Examples
    --------
    >>> as_generator(0).integers(10) == as_generator(0).integers(10)
    np.True_
    """
    given = seed if rng is None else rng
    if isinstance(given, np.random.Generator):
        return given
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise TypeError(
            "seed or rng must be a numpy.random.Generator or an integer, got "
            f"{type(given).__name__}; pass an integer, or numpy.random.default_rng(integer)"
        )
    return np.random.default_rng(as_count(given, "the seed", 0))


@dataclass(frozen=True)
class CanonicalClassificationModel:
    """CCM(D, C) at signal-to-noise ratio t: x = t e_c + z, z ~ N(0, I_D), classes equally likely.

    Papyan (2020) Definition 8.1.

    Parameters
    ----------
    dim
        D, the number of coordinates; at least ``num_classes``.
    num_classes
        C, at least 2.
    snr
        t, the length of a class mean in units of the noise's standard deviation; at least 0.

    Raises
    ------
    TypeError
        If ``dim`` or ``num_classes`` is not an integer, or ``snr`` not a number.
    ValueError
        If D < C, C < 2, or the SNR is negative or its square not finite.

    Examples
    --------
    >>> model = CanonicalClassificationModel(dim=50, num_classes=10, snr=3.0)
    >>> model.size
    500
    """

    dim: int
    num_classes: int
    snr: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_classes", as_count(self.num_classes, "num_classes", 2))
        object.__setattr__(self, "dim", as_count(self.dim, "dim", 1))
        if self.dim < self.num_classes:
            raise ValueError(
                f"dim must be at least num_classes (one orthogonal mean a class), got "
                f"dim={self.dim} and num_classes={self.num_classes}; raise dim or take "
                "fewer classes"
            )
        snr = as_real(self.snr, "snr")
        if not (math.isfinite(snr * snr) and snr >= 0):
            raise ValueError(
                f"snr must be finite and at least 0, got {snr}; its square too must be a float"
            )
        object.__setattr__(self, "snr", snr)

    @property
    def signal(self) -> float:
        """s = t², the squared signal-to-noise ratio."""
        return self.snr**2

    @property
    def size(self) -> int:
        """D·C, the number of parameters of a linear classifier on this model."""
        return self.dim * self.num_classes

    @property
    def means(self) -> Float[np.ndarray, "C D"]:
        """The class means t e_c, one a row.

        Examples
        --------
        >>> CanonicalClassificationModel(3, 2, 1.5).means
        array([[1.5, 0. , 0. ],
               [0. , 1.5, 0. ]])
        """
        return self.snr * np.eye(self.num_classes, self.dim)

    def sample(
        self, per_class: int, seed: Seed = 0, *, rng: Seed | None = None
    ) -> tuple[Float[np.ndarray, "n D"], Int[np.ndarray, " n"]]:
        """N samples of every class, ordered by class: X (NC, D) and labels y (NC,).

        Parameters
        ----------
        per_class
            N, at least 1.
        seed
            An integer, or a numpy Generator (advanced by the call).
        rng
            The same, by its former name.

        Raises
        ------
        TypeError, ValueError
            If ``per_class`` is not an integer of at least 1, or ``seed`` neither of the two.

        Examples
        --------
        >>> X, y = CanonicalClassificationModel(5, 3, 2.0).sample(per_class=2, seed=0)
        >>> X.shape, y.tolist()
        ((6, 5), [0, 0, 1, 1, 2, 2])
        """
        count = as_count(per_class, "per_class", 1)
        labels = np.repeat(np.arange(self.num_classes), count)
        noise = as_generator(seed, rng).standard_normal((labels.size, self.dim))
        return self.means[labels] + noise, labels

    def bayes_probabilities(self, X: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n C"]:
        """The posterior of the classes, softmax(t x_1, …, t x_C); docs/theory.md §2, level 3.

        Raises
        ------
        ValueError
            If X is not an (n, D) array.

        Examples
        --------
        >>> model = CanonicalClassificationModel(2, 2, np.log(3.0))
        >>> model.bayes_probabilities(np.array([[1.0, 0.0]])).round(12)
        array([[0.75, 0.25]])
        """
        X = np.asarray(X, dtype=float)
        if X.ndim != 2 or X.shape[1] != self.dim:
            raise ValueError(f"X must have shape (n, {self.dim}), got {X.shape}")
        return softmax(self.snr * X[:, : self.num_classes], axis=1)

    def bayes_error(self) -> float:
        """The smallest possible misclassification rate, 1 - ∫ φ(z - t) Φ(z)^(C-1) dz.

        docs/theory.md §2, level 3; to 1e-12 absolute.

        Examples
        --------
        >>> round(CanonicalClassificationModel(5, 5, 2.0).bayes_error(), 10)
        0.2121610173
        """
        return largest_coordinate_error(self.num_classes, self.snr)

    def bayes_alpha(self) -> float:
        """α = 1 - E p_true of the Bayes classifier, the mean probability it gives to wrong classes.

        docs/theory.md §2, level 3: (C-1) E p_b for x of another class than b; to 1e-12 absolute.

        Raises
        ------
        ValueError
            If the SNR is above 64.

        Examples
        --------
        >>> round(CanonicalClassificationModel(5, 5, 2.0).bayes_alpha(), 10)
        0.3002192183
        """
        others = self.num_classes - 1
        return others * softmax_moment(self.num_classes, self.snr, (), 0, 1)
