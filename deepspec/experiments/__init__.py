"""The papers' experiments: grids of trainings, on one core or a cluster, and their analysis.

Truth is on disk: a folder a run, so that anything may be killed and the same call goes on.

- ``plan.py``, ``reading.py``: what is to be done, and how TOML says it.
- ``store.py``: what is done. ``worker.py``: one piece of work. ``sweep.py``: the driver.
- ``cluster.py``: where pieces run; the one file that knows Dask.
- ``collect.py``: what was found, read back. ``plans/``: plans that ship.
"""

from deepspec.experiments.collect import Run, Sweep
from deepspec.experiments.plan import Plan
from deepspec.experiments.reading import read_plan
from deepspec.experiments.sweep import Summary, run_sweep

__all__ = ["Plan", "Run", "Summary", "Sweep", "read_plan", "run_sweep"]
