"""The papers' experiments: grids of trainings, on one core or a cluster, and their analysis.

Truth is on disk. :mod:`plan` says what is to be done (:mod:`reading` takes it from TOML),
:mod:`store` what is done, :mod:`worker` does
one piece of it, :mod:`sweep` drives, :mod:`cluster` is the one file that knows Dask, and
:mod:`collect` reads what was found.
"""

from deepspec.experiments.collect import Run, Sweep
from deepspec.experiments.plan import Plan
from deepspec.experiments.reading import read_plan
from deepspec.experiments.sweep import Summary, run_sweep

__all__ = ["Plan", "Run", "Summary", "Sweep", "read_plan", "run_sweep"]
