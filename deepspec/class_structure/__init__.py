"""Class structure: weighted vectors, the parts of their second moment, and their means."""

from deepspec.class_structure._exact_spectrum import ExactSpectrum, exact_spectrum
from deepspec.class_structure.array import ClassArray, gradients
from deepspec.class_structure.groups import frequent_classes
from deepspec.class_structure.mean_projector import MeansProjector
from deepspec.class_structure.means import (
    Means,
    cell_means,
    class_means,
    cross_class_deviations,
    own_class_means,
)
from deepspec.class_structure.operators import ClassStructure

__all__ = [
    "ClassArray",
    "ClassStructure",
    "ExactSpectrum",
    "Means",
    "MeansProjector",
    "cell_means",
    "class_means",
    "cross_class_deviations",
    "exact_spectrum",
    "frequent_classes",
    "gradients",
    "own_class_means",
]
