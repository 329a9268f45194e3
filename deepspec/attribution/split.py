"""What was found on one split of the data."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.alignment import Alignment
from deepspec.attribution.decomposition import Decomposition
from deepspec.attribution.gauss_newton_claims import OUTLIER_MARGIN
from deepspec.attribution.knockouts import Knockout
from deepspec.attribution.mini_bulk import MiniBulk
from deepspec.attribution.predicted_outliers import PredictedOutliers
from deepspec.attribution.spectra import Spectrum
from deepspec.attribution.verdicts import CLAIMS, Finding
from deepspec.class_structure.rows import without
from deepspec.class_structure.two_way import TwoWayLayout
from deepspec.storage.display import Drawable, Result, Table, Tabular


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MeansMap(Result):
    """The Gram matrix of the plain mean gradients, for maps: cells (c, c') and class means."""

    cells: list[list[int]]
    gram: Float[Tensor, "r r"]
    weights: Float[Tensor, " r"]

    def _words(self) -> list[str]:
        return [f"{len(self.cells):,} mean gradients, by their Gram matrix"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SplitAttribution(Result, Tabular, Drawable):
    """Everything found on one split of the data.

    Attributes
    ----------
    samples, loss, error_rate, class_counts
        Of the split; samples are rows, such as tokens, and counts those of groups where there are
        groups of classes.
    soft_labels
        Whether labels were probabilities: classes are then the most probable ones.
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
        The top eigenvalues of Hess with G's top C eigenvectors projected out; upper bounds of them
        where these tell that the outliers are gone.
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
    knockouts: tuple[Knockout, ...]
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
    soft_labels: bool = False

    def _words(self) -> list[str]:
        found = f"{self.outliers} eigenvalues of G clear of the bulk"
        spectra = "exact spectra" if self.exact else "estimated spectra"
        answers = [f"{f.claim}: {f.answer}" for f in self.findings]
        return [f"{self.samples:,} samples, {found}, {spectra}", *answers]

    def _table(self) -> Table:
        claims = [CLAIMS[finding.claim] for finding in self.findings]
        return {
            "claim": [claim.name for claim in claims],
            "feature": [claim.feature for claim in claims],
            "cause": [claim.cause for claim in claims],
            "removed": [finding.removed for finding in self.findings],
            "by_projection": [finding.by_projection for finding in self.findings],
            "verdict": [finding.answer for finding in self.findings],
            "reason": [finding.reason for finding in self.findings],
        }

    @property
    def matvecs(self) -> int:
        """Products with J, Jᵀ and second derivatives that all of it took."""
        return sum(self.matvecs_by_stage.values())

    def finding(self, claim: str) -> Finding:
        """The verdict on one claim, by its name in :data:`~deepspec.attribution.CLAIMS`."""
        return {finding.claim: finding for finding in self.findings}[claim]

    def knockout(self, part: str) -> Knockout:
        """One knockout, by the part's name."""
        return {record.part: record for record in self.knockouts}[part]

    def spectrum(self, name: str) -> Spectrum:
        """One spectrum of G or of a knockout, by its name."""
        return {spectrum.operator: spectrum for spectrum in self.spectra}[name]

    @property
    def whole(self) -> Spectrum:
        """The spectrum that is taken apart: G's, or another second moment's."""
        return self.spectra[0]

    def left_without(self, part: str) -> Spectrum:
        """What is left when one part is subtracted."""
        return self.spectrum(without(self.whole.operator, part))

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
