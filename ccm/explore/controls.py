"""The sliders of the page: each a slider and an exact number beside it, which move together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import panel as pn

from ccm.explore.state import LARGEST, ViewState


class NumberControl:
    """A slider (logarithmic for counts) with a box; ``moved`` is called with the new number."""

    def __init__(
        self, label: str, low: float, high: float, moved: Callable[[float], None], step: float
    ) -> None:
        self.whole = step >= 1
        self._moved, self._quiet = moved, False
        first, last = (math.log10(low), math.log10(high)) if self.whole else (low, high)
        self.slider = pn.widgets.FloatSlider(
            label=label, start=first, end=last, step=0.01 if self.whole else step,
            show_value=False, sizing_mode="stretch_width",
        )  # fmt: skip
        box = pn.widgets.IntInput if self.whole else pn.widgets.FloatInput
        self.box = box(start=low, end=high, step=step, width=95, align="end")
        self.slider.param.watch(self._from_slider, "value")
        self.box.param.watch(self._from_box, "value")
        self.row = pn.Row(self.slider, self.box, sizing_mode="stretch_width")

    def set(self, value: float) -> None:
        """Show a value without reporting it."""
        self._quiet = True
        place = math.log10(value) if self.whole else value
        if not self.whole or self._rounded(self.slider.value) != value:
            self.slider.value = min(max(place, self.slider.start), self.slider.end)
        self.box.value = value
        self._quiet = False

    def _rounded(self, place: float) -> float:
        """The number at a place of the slider; of two digits on a logarithmic one."""
        if not self.whole:
            return round(place, 6)
        number = 10**place
        digits = max(0, math.floor(math.log10(number)) - 1)
        return min(max(round(number / 10**digits) * 10**digits, self.box.start), self.box.end)

    def _from_slider(self, event: Any) -> None:
        if not self._quiet:
            self._moved(self._rounded(event.new))

    def _from_box(self, event: Any) -> None:
        if not self._quiet and event.new is not None:
            self._moved(event.new)


class Controls:
    """All that can be moved; ``moved`` gets the name and the new value of a state's field."""

    MODES: ClassVar[dict[str, str]] = {
        "Bayes": "bayes",
        "fixed": "fixed",
        "measured by a fit": "measured",
    }

    def __init__(self, moved: Callable[[str, Any], None]) -> None:
        self._moved, self._quiet = moved, False

        def on(name: str) -> Callable[[float], None]:
            return lambda value: moved(name, value)

        top = LARGEST
        self.numbers = {
            "dim": NumberControl("D, coordinates", 2, top["dim"], on("dim"), 1),
            "num_classes": NumberControl("C, classes", 2, top["num_classes"], on("num_classes"), 1),
            "snr": NumberControl("t, signal-to-noise ratio", 0, top["snr"], on("snr"), 0.1),
            "per_class": NumberControl(
                "N, samples of a class", 1, top["per_class"], on("per_class"), 1
            ),
        }
        self.mode = pn.widgets.RadioButtonGroup(
            options=self.MODES, value="bayes", sizing_mode="stretch_width", label="α"
        )
        self.alpha = NumberControl("α, fixed", 0, 0.99, on("alpha"), 0.001)
        self.seed = pn.widgets.IntInput(
            label="seed of samples", start=0, end=int(top["seed"]), width=140
        )
        self.mode.param.watch(self._from_mode, "value")
        self.seed.param.watch(self._from_seed, "value")
        self.used_alpha = 0.1
        self.box = pn.Column(
            *(control.row for control in self.numbers.values()),
            pn.pane.HTML("<b>α</b>, mean probability of the wrong classes", margin=(5, 10, 0, 10)),
            self.mode,
            self.alpha.row,
            self.seed,
            sizing_mode="stretch_width",
        )

    def set(self, state: ViewState, alpha: float) -> None:
        """Show a view; ``alpha`` is the number that is used for it."""
        self._quiet = True
        for name, control in self.numbers.items():
            control.set(getattr(state, name))
        fixed = not isinstance(state.alpha, str)
        self.mode.value = "fixed" if fixed else state.alpha
        top = 1 - 1 / state.num_classes
        self.alpha.box.end = top
        self.alpha.slider.end = top
        self.alpha.set(min(alpha, top))
        self.alpha.slider.disabled = self.alpha.box.disabled = not fixed
        self.seed.value = state.seed
        self.used_alpha = min(alpha, top)
        self._quiet = False

    def _from_mode(self, event: Any) -> None:
        if not self._quiet:
            chosen = round(self.used_alpha, 4) if event.new == "fixed" else event.new
            self._moved("alpha", chosen)

    def _from_seed(self, event: Any) -> None:
        if not self._quiet and event.new is not None:
            self._moved("seed", event.new)
