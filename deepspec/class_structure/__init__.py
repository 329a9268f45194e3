"""The means of the class structure: Grams, eigenvectors and projectors, without C² vectors of θ."""

from deepspec.class_structure.mean_projector import MeansProjector
from deepspec.class_structure.means import (
    Means,
    cell_means,
    class_means,
    cross_class_deviations,
    own_class_means,
)

__all__ = [
    "Means",
    "MeansProjector",
    "cell_means",
    "class_means",
    "cross_class_deviations",
    "own_class_means",
]
