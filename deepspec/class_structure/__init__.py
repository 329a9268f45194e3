"""Class structure: weighted vectors, the parts of their second moment, and their means.

Every second moment is V = DᵀD of rows D with classes and weights, and every part DᵀPD:

- ``array.py``: :class:`ClassArray`, its spectra, and what is left when a part is knocked out.
- ``rows.py``: how D multiplies. Another second moment is another subclass of ``Rows``.
- ``parts.py``: the projectors P. ``BetweenClass`` makes G_class, ``CrossClass`` G_cross.
- ``cells.py``: weights and labels, all that the parts know.
- ``downdate.py``: knockouts in the coordinates of S's eigenvectors, a diagonal less r columns;
  ``known_nulls.py``: what is known to be zero before anything is computed.
- ``gram.py``: S = D Dᵀ, formed, and its eigenvalue problems.
- ``operators.py``: :class:`ClassStructure`, G's four parts by name.
- ``means.py``: the mean vectors themselves; ``two_way.py``: their two-way layout.
"""

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
    "frequent_classes",
    "gradients",
    "own_class_means",
    "two_way_layout",
]
