"""Class structure: weighted vectors, the parts of their second moment, and their means."""

from deepspec.class_structure._exact_spectrum import ExactSpectrum, exact_spectrum
from deepspec.class_structure.array import ClassArray, gradients
from deepspec.class_structure.mean_projector import MeansProjector
from deepspec.class_structure.means import (
    Means,
    cell_means,
    class_means,
    cross_class_deviations,
    own_class_means,
)
from deepspec.class_structure.operators import ClassStructure
from deepspec.class_structure.two_way import TwoWayLayout, two_way_layout

__all__ = [
    "ClassArray",
    "ClassStructure",
    "ExactSpectrum",
    "Means",
    "MeansProjector",
    "TwoWayLayout",
    "cell_means",
    "class_means",
    "cross_class_deviations",
    "exact_spectrum",
    "gradients",
    "own_class_means",
    "two_way_layout",
]
