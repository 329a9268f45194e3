"""What drawing a figure of the papers gives."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure, and whether what it should show is there; None where that is for the eye."""

    figure: Figure
    there: bool | None
    found: str
