"""What every theory returns: eigenvalues in groups, each with a multiplicity and a name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

# What a formula takes: a float or a SymPy expression. The formulas that ccm.symbolic proves are
# plain arithmetic and do not care which.
Scalar = Any


@dataclass(frozen=True)
class Level:
    """One eigenvalue, how often it occurs, and what it is called.

    A label may carry a part after a colon: ``"mini-bulk: trivial"`` is a part of the mini-bulk.

    Raises
    ------
    ValueError
        If the value is not finite or the multiplicity is below one.

    Examples
    --------
    >>> Level(0.5, 3, "outliers").multiplicity
    3
    """

    value: float
    multiplicity: int
    label: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(
                f"an eigenvalue must be finite, but level {self.label!r} has {self.value}; "
                "check the parameters it was computed from"
            )
        if self.multiplicity < 1:
            raise ValueError(
                f"a level needs a multiplicity of at least 1, but {self.label!r} has "
                f"{self.multiplicity}; leave empty groups out"
            )


@dataclass(frozen=True)
class Spectrum:
    """All eigenvalues of a symmetric matrix, as levels in descending order of value.

    Examples
    --------
    >>> spectrum = Spectrum.of([Level(0.0, 2, "null"), Level(3.0, 1, "outliers")])
    >>> spectrum.eigenvalues
    array([3., 0., 0.])
    >>> spectrum.level("outliers").value
    3.0
    """

    levels: tuple[Level, ...]

    @classmethod
    def of(cls, levels: Iterable[Level]) -> Spectrum:
        """The spectrum with these levels, sorted; levels of equal value keep their order.

        Examples
        --------
        >>> [level.label for level in Spectrum.of([Level(0, 1, "a"), Level(1, 1, "b")]).levels]
        ['b', 'a']
        """
        return cls(tuple(sorted(levels, key=lambda level: -level.value)))

    @property
    def size(self) -> int:
        """The number of eigenvalues, counted with multiplicity: D·C for a FIM of the model."""
        return sum(level.multiplicity for level in self.levels)

    @property
    def trace(self) -> float:
        """The sum of the eigenvalues."""
        return math.fsum(level.value * level.multiplicity for level in self.levels)

    @property
    def eigenvalues(self) -> Float[np.ndarray, " DC"]:
        """Every eigenvalue, repeated by its multiplicity, in descending order."""
        values = np.array([level.value for level in self.levels], dtype=float)
        return np.repeat(values, [level.multiplicity for level in self.levels])

    def level(self, label: str) -> Level:
        """The level with this label.

        Raises
        ------
        ValueError
            If there is none; the message lists those there are.
        """
        for level in self.levels:
            if level.label == label:
                return level
        raise ValueError(self._unknown(label))

    def mean(self, label: str) -> float:
        """The mean eigenvalue of a group: the level of this label and its parts ``label: ...``.

        Raises
        ------
        ValueError
            If no level belongs to the group.

        Examples
        --------
        >>> parts = [Level(1.0, 3, "mini-bulk: a"), Level(5.0, 1, "mini-bulk: b")]
        >>> Spectrum.of(parts).mean("mini-bulk")
        2.0
        """
        group = [lv for lv in self.levels if lv.label == label or lv.label.startswith(f"{label}: ")]
        if not group:
            raise ValueError(self._unknown(label))
        total = math.fsum(level.value * level.multiplicity for level in group)
        return total / sum(level.multiplicity for level in group)

    def records(self) -> list[dict[str, float | int | str]]:
        """The levels as plain dictionaries, for JSON."""
        return [
            {"label": lv.label, "value": float(lv.value), "multiplicity": lv.multiplicity}
            for lv in self.levels
        ]

    def _unknown(self, label: str) -> str:
        known = ", ".join(repr(level.label) for level in self.levels)
        return f"there is no level {label!r} in this spectrum; its levels are {known}"
