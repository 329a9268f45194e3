"""What a net is like at one moment of its training: spectra, and how far their bulks are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.spectra import Spectrum
from deepspec.attribution.split import MeansMap
from deepspec.class_structure.two_way import TwoWayLayout
from deepspec.storage.display import Result

FLOOR = 1e-5


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class SnapshotSpectra(Result):
    """What a net is like after some epoch of its training, on its training data.

    Attributes
    ----------
    epoch
        0 is the untrained net.
    samples, classes, parameters
        n, C, p.
    loss, error_rate, test_error
        In eval mode; the test error is NaN where it is not known.
    exact
        Whether spectra of G are; by Lanczos otherwise.
    trace
        tr G.
    spectrum, within
        Of G, and of G_within: eigenvalues of S (samples × classes of them).
    class_values, cross_values, own_values
        The eigenvalues of G_class, G_cross and G_{c=c'} (Papyan 2020, eq. 6.4), descending.
    within_means
        tr G_within,c / n_c for each class c: the mean eigenvalues of Papyan (2020) Fig. 6.
    within_trace, within_rank
        tr G_within, and how many eigenvalues of it may differ from zero.
    levels
        Eigenvalues of ``G0``, ``G1``, ``G2`` and ``G1+2`` of Papyan (2019), eq. 23 and 28.
    hessian
        Spectra of Hess and E, where they were asked for.
    layout, means
        How the mean gradients split between c and c', and what a map of them needs.
    """

    epoch: int
    samples: int
    classes: int
    parameters: int
    loss: float
    error_rate: float
    test_error: float
    exact: bool
    trace: float
    spectrum: Spectrum
    within: Spectrum
    class_values: Float[Tensor, " a"]
    cross_values: Float[Tensor, " b"]
    own_values: Float[Tensor, " c"]
    within_means: Float[Tensor, " C"]
    within_trace: float
    within_rank: int
    levels: dict[str, Float[Tensor, " _"]]
    hessian: tuple[Spectrum, ...]
    layout: TwoWayLayout | None
    means: MeansMap | None

    def _words(self) -> list[str]:
        return [
            f"epoch {self.epoch}",
            f"n = {self.samples:,}",
            f"p = {self.parameters:,}",
            f"error {self.error_rate:.1%}",
            f"tr G {self.trace:.3g}",
            f"G_cross {self.separation:+.2f} decades from G_within",
        ]

    @property
    def separation(self) -> float:
        """log₁₀ of the mean nonzero eigenvalue of G_cross over that of G_within, in decades.

        Traces over ranks: how far apart the two bulks of Papyan (2020) §6.2 are, without a word on
        which eigenvalues count as zero.
        """
        return self._decades(float(self.cross_values.sum()), self.classes * (self.classes - 2))

    @property
    def distance(self) -> float:
        """How far apart the bulks of G_cross and G_within are on the log axis, in decades.

        The area between the distribution functions of log₁₀ of their nonzero eigenvalues, those
        below 10⁻⁵ of λ₁(G) counted as that: as far as Papyan (2020) Fig. 6 looks. It does not say
        which of the two lies to the right.
        """
        floor = FLOOR * float(self.spectrum.top[0])
        cross = torch.zeros(self.classes * (self.classes - 2), dtype=torch.float64)
        if not len(cross) or not len(self.cross_values) or floor <= 0:
            return math.nan
        kept = min(len(cross), len(self.cross_values))
        cross[:kept] = self.cross_values[:kept]
        order = self.within.nodes.argsort(descending=True)
        values, counts = self.within.nodes[order], self.within.counts[order].double()
        # As many as the rank says: what lies below is zero, or (fewer were found) too small.
        left = (self.within_rank - counts.cumsum(0)).clamp_max(0.0)
        counts = (counts + left).clamp_min(0.0)
        missing = max(0.0, self.within_rank - float(counts.sum()))
        values = torch.cat([values, values.new_zeros(1)]).clamp_min(floor).log10()
        counts = torch.cat([counts, counts.new_tensor([missing])])
        return float(
            scipy.stats.wasserstein_distance(
                cross.clamp_min(floor).log10(), values, v_weights=counts
            )
        )

    @property
    def class_separation(self) -> float:
        """The same for G_class."""
        return self._decades(float(self.class_values.sum()), self.classes)

    def _decades(self, trace: float, rank: int) -> float:
        if rank < 1 or trace <= 0 or self.within_trace <= 0:
            return math.nan
        return math.log10(trace / rank) - math.log10(self.within_trace / self.within_rank)

    @property
    def edge_of_e(self) -> float:
        """The largest |λ| of E: what Papyan (2018) Fig. 6 scales its axes by; NaN without Hess."""
        for spectrum in self.hessian:
            if spectrum.operator == "E":
                return float(torch.cat([spectrum.top, spectrum.nodes]).abs().max())
        return math.nan
