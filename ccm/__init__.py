"""The canonical classification model: class structure in a Fisher information, in theory."""

from ccm.model import CanonicalClassificationModel
from ccm.spectrum import Level, Spectrum
from ccm.symmetric import symmetric_fim, symmetric_probabilities, symmetric_spectrum

__all__ = [
    "CanonicalClassificationModel",
    "Level",
    "Spectrum",
    "symmetric_fim",
    "symmetric_probabilities",
    "symmetric_spectrum",
]
