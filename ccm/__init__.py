"""The canonical classification model: class structure in a Fisher information, in theory."""

from ccm.bayes import bayes_fim, bayes_spectrum
from ccm.explore import explorer
from ccm.finite_sample import FiniteSampleLaw, finite_sample_law
from ccm.fisher import LogitSpaceOperator, empirical_fim, fim_operator, fim_trace
from ccm.logistic import ConvergenceError, LogisticFit, SeparableDataError, fit_logistic
from ccm.model import CanonicalClassificationModel
from ccm.parts import ClassStructure, class_structure
from ccm.resume import ResumeError
from ccm.simulation import (
    GroupMeans,
    Simulation,
    group_means,
    leading_eigenvalues,
    simulate,
    spectrum_group_means,
)
from ccm.spectrum import Level, Spectrum
from ccm.sweep import SweepConfiguration, SweepTable, snr_sweep
from ccm.symmetric import symmetric_fim, symmetric_probabilities, symmetric_spectrum

__all__ = [
    "CanonicalClassificationModel",
    "ClassStructure",
    "ConvergenceError",
    "FiniteSampleLaw",
    "GroupMeans",
    "Level",
    "LogisticFit",
    "LogitSpaceOperator",
    "ResumeError",
    "SeparableDataError",
    "Simulation",
    "Spectrum",
    "SweepConfiguration",
    "SweepTable",
    "bayes_fim",
    "bayes_spectrum",
    "class_structure",
    "empirical_fim",
    "explorer",
    "fim_operator",
    "fim_trace",
    "finite_sample_law",
    "fit_logistic",
    "group_means",
    "leading_eigenvalues",
    "simulate",
    "snr_sweep",
    "spectrum_group_means",
    "symmetric_fim",
    "symmetric_probabilities",
    "symmetric_spectrum",
]
