"""What was found on one split of the data."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.alignment import Alignment
from deepspec.attribution.decomposition import Decomposition
from deepspec.attribution.gauss_newton_claims import OUTLIER_MARGIN
from deepspec.attribution.mini_bulk import MiniBulk
from deepspec.attribution.predicted_outliers import PredictedOutliers
from deepspec.attribution.spectra import Spectrum
from deepspec.attribution.verdicts import Finding
from deepspec.class_structure.two_way import TwoWayLayout


@dataclass(frozen=True, eq=False)
class KnockoutRecord:
    """The top eigenvalues of G with one part knocked out, both ways."""

    part: str
    rank: int
    subtracted: Float[Tensor, " k"]
    projected: Float[Tensor, " k"]


@dataclass(frozen=True, eq=False)
class MeansMap:
    """The Gram matrix of the plain mean gradients, for maps: cells (c, c') and class means."""

    cells: list[list[int]]
    gram: Float[Tensor, "r r"]
    weights: Float[Tensor, " r"]


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SplitAttribution:
    """Everything found on one split of the data.

    Attributes
    ----------
    samples, loss, error_rate, class_counts
        Of the split.
    top
        The largest eigenvalues of G.
    edge
        The largest eigenvalue of G_within: where the bulk of G ends.
    trace, trace_error
        tr G and its standard error (0 where it is exact).
    decompositions
        In the chosen convention first, then in the other one.
    knockouts
        Of each part, from G.
    spectra
        "G", "G − G_class" and so on, then "Hess", "G" and "E" in parameter space.
    hessian_projected
        The top eigenvalues of Hess with G's top C eigenvectors projected out.
    findings, alignment, predicted, layout, means
        Verdicts; angles; predicted outliers; two-way layout; the map's Gram matrix (None where
        there are too many cells).
    mini_bulk
        Where it lies beside the bulk; None where S was not formed.
    exact
        Whether G's spectra are exact or estimated by Lanczos.
    seconds_by_stage, matvecs_by_stage
        What the stages of the work took: time, and products with J, Jᵀ and second derivatives.
    without_hessian
        Why Hess and E are missing, if they are.
    """

    samples: int
    loss: float
    error_rate: float
    class_counts: list[int]
    top: Float[Tensor, " k"]
    edge: float
    trace: float
    trace_error: float
    decompositions: tuple[Decomposition, ...]
    knockouts: tuple[KnockoutRecord, ...]
    spectra: tuple[Spectrum, ...]
    hessian_spectra: tuple[Spectrum, ...]
    hessian_projected: Float[Tensor, " k"]
    findings: tuple[Finding, ...]
    alignment: Alignment | None
    predicted: PredictedOutliers
    mini_bulk: MiniBulk | None
    layout: TwoWayLayout | None
    means: MeansMap | None
    exact: bool
    seconds_by_stage: dict[str, float]
    matvecs_by_stage: dict[str, int]
    without_hessian: str

    def __repr__(self) -> str:
        answers = ", ".join(f"{f.claim}: {f.answer}" for f in self.findings)
        return f"SplitAttribution({self.samples:,} samples; {answers})"

    @property
    def matvecs(self) -> int:
        """Products with J, Jᵀ and second derivatives that all of it took."""
        return sum(self.matvecs_by_stage.values())

    def finding(self, claim: str) -> Finding:
        """The verdict on one claim, by its name in :data:`~deepspec.attribution.CLAIMS`."""
        return {finding.claim: finding for finding in self.findings}[claim]

    def knockout(self, part: str) -> KnockoutRecord:
        """One knockout, by the part's name."""
        return {record.part: record for record in self.knockouts}[part]

    def spectrum(self, name: str) -> Spectrum:
        """One spectrum of G or of a knockout, by its name."""
        return {spectrum.operator: spectrum for spectrum in self.spectra}[name]

    @property
    def outliers(self) -> int:
        """How many eigenvalues of G stand clear of the bulk: above 1.25 times its edge."""
        return int((self.top > OUTLIER_MARGIN * self.edge).sum())

    def outliers_without(self, part: str) -> int:
        """The same once a part's range is projected out, or where unmeasured the part subtracted.

        Projection, because class means and own-class means share one range: as
        Σ_c' p_{i,c'} g_{i,c'} = 0, w_c g_c = −w_{c,c} g_{c,c}, and subtracting G_class leaves the
        share (1 − p)/p of each of its eigenvalues to G_{c=c'}.
        """
        record = self.knockout(part)
        left = record.subtracted if bool(record.projected.isnan().any()) else record.projected
        return int((left > OUTLIER_MARGIN * self.edge).sum())
