"""Where the papers' figures come from: one net of a sweep, its nets and data at hand."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

from deepspec.attribution import attribute
from deepspec.attribution.split import SplitAttribution
from deepspec.dynamics.snapshot_spectra import SnapshotSpectra
from deepspec.experiments.collect import Run, Sweep
from deepspec.experiments.worker import problem_of
from deepspec.krylov import Eigenpairs, SpectralDensity, spectral_density, top_eigenpairs
from deepspec.operators import Hessian
from deepspec.problem import Problem
from deepspec.report.dynamics import History

STEPS, DRAWS = 100, 4


class Source:
    """A sweep's first net on its first data, read and computed as figures ask for it.

    Parameters
    ----------
    sweep
        Where from.
    per_class
        Which sample size figures of one net are of; default the largest.
    root
        Of the data's files, where there are any.

    Raises
    ------
    ValueError
        If no net was trained on so many samples.
    """

    def __init__(
        self, sweep: Sweep, per_class: int | None = None, root: str | Path | None = None
    ) -> None:
        self.trajectory = History.of(next(iter(sweep.groups().values())))
        sizes = self.trajectory.sizes
        self.per_class = sizes[-1] if per_class is None else per_class
        if self.per_class not in sizes:
            there = ", ".join(map(str, sizes))
            raise ValueError(f"expected --per-class out of {there}, got {per_class}")
        self.root = root

    @property
    def run(self) -> Run:
        """The one net that figures of one net are of."""
        return next(run for run in self.trajectory.runs if run.cell.per_class == self.per_class)

    @property
    def moments(self) -> list[SnapshotSpectra]:
        """What was measured of it, by epoch."""
        return self.trajectory.of_size(self.per_class)

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """The net after its last epoch, on train and on test data."""
        split, snapshots = self.run.split(self.root), self.run.snapshots(self.root)
        net = snapshots[-1]
        return {"train": problem_of(net, split.train), "test": problem_of(net, split.test)}

    @cached_property
    def attribution(self) -> SplitAttribution:
        """The papers' claims on the training data, from the sweep or computed now."""
        known = self.run.claims
        if known:
            return known[max(known)]
        return attribute(self.problems["train"], draws=DRAWS, steps=STEPS, seed=self.run.seed).train

    def pairs(self, split: str = "train") -> Eigenpairs:
        """The top C of Hess."""
        problem = self.problems[split]
        return top_eigenpairs(
            Hessian(problem), min(problem.num_classes, problem.size), tol=1e-3, seed=0
        )

    def density(self, split: str = "train", pairs: Eigenpairs | None = None) -> SpectralDensity:
        """The density of Hess, off some pairs."""
        operator = Hessian(self.problems[split])
        return spectral_density(
            operator if pairs is None else operator.deflate(pairs), STEPS, 2, seed=0
        )

    @property
    def decay(self) -> float:
        """tr G at its peak over that after the last epoch."""
        traces = [moment.trace for moment in self.moments]
        return max(traces) / traces[-1] if traces[-1] > 0 else math.inf
