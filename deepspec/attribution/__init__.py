"""Attribution: which part of the spectrum has which cause."""

from deepspec.attribution._attribute import attribute
from deepspec.attribution.alignment import Alignment
from deepspec.attribution.decomposition import Decomposition, PartSummary
from deepspec.attribution.mini_bulk import MiniBulk
from deepspec.attribution.predicted_outliers import PredictedOutliers
from deepspec.attribution.result import Attribution
from deepspec.attribution.spectra import Spectrum
from deepspec.attribution.split import KnockoutRecord, MeansMap, SplitAttribution
from deepspec.attribution.verdicts import CLAIMS, Claim, Finding, judge
from deepspec.class_structure.two_way import TwoWayLayout

__all__ = [
    "CLAIMS",
    "Alignment",
    "Attribution",
    "Claim",
    "Decomposition",
    "Finding",
    "KnockoutRecord",
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
