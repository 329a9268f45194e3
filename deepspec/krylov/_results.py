"""A few eigenvalues with their eigenvectors, and how well they are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from deepspec.storage.checkpoint import load_state, save_state


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """A few eigenvalues and eigenvectors.

    Attributes
    ----------
    values
        Descending, whichever end of the spectrum they are from.
    vectors
        Orthonormal columns, in the order of the values.
    residuals
        ‖A v − λ v‖ for each: an eigenvalue of A lies no further from λ than this. At least
        10 ε ‖A‖, which is what the products' rounding may hide.
    matvecs
        How many products with A they took.
    miss_probability
        A bound on the probability that an eigenvalue that belongs here was missed (another copy
        of a repeated one, say): see :func:`top_eigenpairs`. Small where a gap follows the pairs;
        1 where none does, as inside a bulk: that says that nothing was shown, not that
        something is missing. NaN where nothing is known.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "p k"]
    residuals: Float[Tensor, " k"]
    matvecs: int
    miss_probability: float = math.nan

    def save(self, folder: str | Path) -> None:
        """Write a JSON manifest and the arrays (safetensors) into a folder."""
        missed = repr(self.miss_probability)
        manifest = {"kind": "eigenpairs", "matvecs": self.matvecs, "miss_probability": missed}
        arrays = {"values": self.values, "vectors": self.vectors, "residuals": self.residuals}
        save_state(Path(folder), manifest, arrays)

    @classmethod
    def load(cls, folder: str | Path) -> Eigenpairs:
        """Read what :meth:`save` wrote, onto the CPU.

        Raises
        ------
        ValueError
            If the folder holds something else.
        """
        manifest, arrays = load_state(Path(folder))
        if manifest.get("kind") != "eigenpairs":
            raise ValueError(f"expected saved eigenpairs in {folder}, found {manifest.get('kind')}")
        return cls(
            arrays["values"],
            arrays["vectors"],
            arrays["residuals"],
            manifest["matvecs"],
            float(manifest["miss_probability"]),
        )


class NotConverged(RuntimeError):
    """The products ran out before the residuals were small; ``pairs`` is what there was."""

    def __init__(self, message: str, pairs: Eigenpairs) -> None:
        super().__init__(message)
        self.pairs = pairs
