"""Attribution: which part of the spectrum has which cause.

- ``knockouts.py``: what a part's removal leaves, where S is too large to form (where it is not:
  :meth:`deepspec.ClassArray.knock_out`), and the share of a feature that it removes.
- ``removal.py``: one measured part knocked out, both ways, exactly where S is formed.
- ``nulls.py``: what else of the same kind removes; ``verdicts.py``: from both to an answer.
- ``mini_bulk.py``, ``predicted_outliers.py``, ``alignment.py``: where things are, and why.
- ``result.py``, ``split.py``: what was found; ``summary.py``: the same in words and tables.
"""

from deepspec.attribution._attribute import attribute
from deepspec.attribution.alignment import Alignment
from deepspec.attribution.by_layer import LayerAttribution
from deepspec.attribution.decomposition import Decomposition, PartSummary
from deepspec.attribution.knockouts import Knockout
from deepspec.attribution.mini_bulk import MiniBulk
from deepspec.attribution.predicted_outliers import PredictedOutliers
from deepspec.attribution.result import Attribution
from deepspec.attribution.spectra import Spectrum
from deepspec.attribution.split import MeansMap, SplitAttribution
from deepspec.attribution.verdicts import CLAIMS, Claim, Finding, judge
from deepspec.class_structure.two_way import TwoWayLayout

__all__ = [
    "CLAIMS",
    "Alignment",
    "Attribution",
    "Claim",
    "Decomposition",
    "Finding",
    "Knockout",
    "LayerAttribution",
    "MeansMap",
    "MiniBulk",
    "PartSummary",
    "PredictedOutliers",
    "Spectrum",
    "SplitAttribution",
    "TwoWayLayout",
    "attribute",
    "judge",
]
