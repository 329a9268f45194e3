"""Class structure in the spectra of trained PyTorch classifiers: which eigenvalue has which cause.

Where to start::

    problem = deepspec.Problem(net, (X, y))       # a trained net and its data
    deepspec.attribute(problem).summary()         # which part of the spectrum has which cause
    deepspec.gradients(problem)                   # the array behind it: parts, knockouts, spectra
    deepspec.ClassArray(embeddings, labels)       # the same for anyone's vectors
    deepspec.Layers(problem)[0].features          # and for what each layer sees
    deepspec.top_eigenpairs(deepspec.Hessian(problem), k=10)
    deepspec.spectral_density(deepspec.GaussNewton(problem)).plot()

Results can be printed, drawn (``.plot()``), tabulated (``.to_frame()``), saved and loaded. What is
not here is in the packages: ``operators`` (products and algebra), ``class_structure`` (arrays,
parts, means), ``krylov`` (estimators, ``krylov.baselines``), ``layerwise``
(KFAC and its kin, neural collapse), ``attribution`` (verdicts),
``dynamics`` (snapshots, neural collapse), ``zoo`` (nets, data, training), ``report``.

Papers that docstrings cite:

- Papyan (2018): The full spectrum of deepnet Hessians at scale, arXiv:1811.07062.
- Papyan (2019): Measurements of three-level hierarchical structure in the outliers in the spectrum
  of deepnet Hessians, ICML.
- Papyan (2020): Traces of class/cross-class structure pervade deep learning spectra, JMLR 21.
- Papyan, Han, Donoho (2020): Prevalence of neural collapse during the terminal phase of deep
  learning training, PNAS 117.
"""

from deepspec.attribution import Attribution, attribute
from deepspec.class_structure import (
    ClassArray,
    ClassStructure,
    ExactSpectrum,
    exact_spectrum,
    gradients,
)
from deepspec.dynamics import Recorder
from deepspec.krylov import (
    Eigenpairs,
    Estimate,
    JoinedSpectrum,
    LogSpectralDensity,
    NotConverged,
    SpectralDensity,
    block_spectra,
    count_outliers,
    extreme_eigenvalues,
    fit_power_law,
    frobenius_norm,
    joined_spectrum,
    lanczos,
    log_spectral_density,
    spectral_density,
    top_eigenpairs,
    trace,
)
from deepspec.layerwise import Layers, curvature_agreement
from deepspec.neural_tangent_kernel import tangent_kernel
from deepspec.next_tokens import language_model
from deepspec.operators import (
    ColumnSpace,
    GaussNewton,
    Hessian,
    MatrixOperator,
    Residual,
    SymmetricOperator,
)
from deepspec.problem import Problem

__all__ = [  # noqa: RUF022 (grouped, in the order in which they are met)
    # A trained classifier, and what causes its spectrum.
    "Problem",
    "language_model",
    "attribute",
    "Attribution",
    "Recorder",
    # Second moments of vectors with classes.
    "gradients",
    "ClassArray",
    "ClassStructure",
    # Where they are made: layer by layer.
    "Layers",
    "curvature_agreement",
    # Matrices known by their products.
    "SymmetricOperator",
    "GaussNewton",
    "Hessian",
    "Residual",
    "MatrixOperator",
    "ColumnSpace",
    # Spectra, exactly.
    "exact_spectrum",
    "ExactSpectrum",
    "tangent_kernel",
    # Spectra, by few products.
    "top_eigenpairs",
    "Eigenpairs",
    "NotConverged",
    "extreme_eigenvalues",
    "spectral_density",
    "SpectralDensity",
    "log_spectral_density",
    "LogSpectralDensity",
    "joined_spectrum",
    "JoinedSpectrum",
    "trace",
    "frobenius_norm",
    "Estimate",
    "block_spectra",
    "lanczos",
    "count_outliers",
    "fit_power_law",
]
