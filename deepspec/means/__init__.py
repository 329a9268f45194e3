"""The means of the class structure: Grams, eigenvectors and projectors, without C² vectors of θ."""

from deepspec.means.family import (
    Means,
    cell_means,
    class_means,
    cross_class_deviations,
    own_class_means,
)
from deepspec.means.projector import MeansProjector

__all__ = [
    "Means",
    "MeansProjector",
    "cell_means",
    "class_means",
    "cross_class_deviations",
    "own_class_means",
]
