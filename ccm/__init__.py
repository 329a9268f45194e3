"""The canonical classification model: class structure in a Fisher information, in theory."""

from ccm.bayes import bayes_fim, bayes_spectrum
from ccm.finite_sample import FiniteSampleLaw, finite_sample_law
from ccm.model import CanonicalClassificationModel
from ccm.spectrum import Level, Spectrum
from ccm.symmetric import symmetric_fim, symmetric_probabilities, symmetric_spectrum

__all__ = [
    "CanonicalClassificationModel",
    "FiniteSampleLaw",
    "Level",
    "Spectrum",
    "bayes_fim",
    "bayes_spectrum",
    "finite_sample_law",
    "symmetric_fim",
    "symmetric_probabilities",
    "symmetric_spectrum",
]
