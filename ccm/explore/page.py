"""The page: controls, pictures, the table, the lines to copy; the same served and in a notebook."""

from __future__ import annotations

import io
from html import escape
from typing import Any

import numpy as np
import panel as pn
from jaxtyping import Float
from panel.links import Callback

from ccm.explore.controls import Controls
from ccm.explore.curves import bayes_alpha
from ccm.explore.draws import DRAWS, check_simulation
from ccm.explore.figures import RatioFigures, SnrFigure, SpectrumFigure
from ccm.explore.job import Job
from ccm.explore.levels import LEVELS, Row, level_rows, to_csv
from ccm.explore.script import python_lines
from ccm.explore.simulated import simulated_rows
from ccm.explore.state import ViewState, parse_query

POLL = 150  # milliseconds between looks at a running job
GRID = """
:host { display: grid !important; gap: 8px 24px; align-items: start; box-sizing: border-box;
  grid-template-columns: minmax(0, 1fr); padding: 8px; max-width: 1400px; margin: 0 auto; }
@media (min-width: 900px) {
  :host { grid-template-columns: 330px minmax(0, 1fr); padding: 16px; }
}
"""
RATIOS_GRID = """
:host { display: grid !important; gap: 8px; width: 100%;
  grid-template-columns: repeat(auto-fit, minmax(min(250px, 100%), 1fr)); }
"""
TEXT = """
:host { font: 14px/1.45 system-ui, sans-serif; color: #222; }
h1 { font-size: 20px; margin: 0; } h2 { font-size: 16px; margin: 8px 0 0; } p { margin: 4px 0; }
.scroll { overflow-x: auto; } td { white-space: nowrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 2px 12px 2px 0; border-bottom: 1px solid #DDD; }
td.n, th.n { text-align: right; white-space: nowrap; }
pre { background: #F5F5F5; padding: 10px; overflow-x: auto; font-size: 12px; margin: 0; }
.bad { background: #FBE3D6; border-left: 4px solid #D55E00; padding: 6px 10px; }
"""


class Page:
    """One visitor's page. ``view`` is what is shown."""

    def __init__(
        self, state: ViewState, messages: tuple[str, ...] = (), served: bool = False
    ) -> None:
        pn.extension()
        self.state, self.served = state, served
        self.rows: list[Row] = []
        self.draws: list[Float[np.ndarray, " k"]] = []
        self.job: Job | None = None
        self.measured: dict[ViewState, dict[str, float]] = {}
        self.timer: Any = None
        self.controls = Controls(self.moved)
        self.spectrum, self.snr, self.ratios = SpectrumFigure(), SnrFigure(), RatioFigures()
        self._panes()
        self._messages(messages)
        self.show()

    def _panes(self) -> None:
        def text(html: str = "") -> Any:
            return pn.pane.HTML(html, stylesheets=[TEXT], sizing_mode="stretch_width", margin=0)

        def picture(figure: Any) -> Any:
            return pn.pane.Bokeh(figure, sizing_mode="stretch_width", margin=0)

        self.head = text(
            "<h1>Canonical classification model</h1><p>x = t e<sub>c</sub> + z, z ~ N(0, I), in "
            "D dimensions; the Fisher information of a linear classifier.</p>"
        )
        self.alert, self.facts, self.status = text(), text(), text()
        self.table, self.code = text(), text()
        self.simulate = pn.widgets.Button(label="Simulate one spectrum", color="primary")
        self.stop = pn.widgets.Button(label="Cancel", visible=False)
        self.simulate.on_click(lambda _: self.start("spectrum"))
        self.stop.on_click(lambda _: self.cancel("cancelled"))
        self.progress = pn.indicators.Progress(
            value=0, max=100, visible=False, sizing_mode="stretch_width"
        )
        self.download = pn.widgets.FileDownload(
            callback=lambda: io.StringIO(to_csv(self.rows, self.state, self.alpha)),
            filename="ccm-levels.csv", label="Download CSV", width=160,
        )  # fmt: skip
        self.copied = pn.widgets.TextAreaInput(visible=False)
        self.copy = pn.widgets.Button(label="Copy the lines", width=160)
        self.copy.js_on_click(
            args={"lines": self.copied}, code="navigator.clipboard.writeText(lines.value)"
        )
        self.query = pn.widgets.TextInput(value=self.state.query(), visible=False)
        if self.served:  # in a notebook the address is the notebook's own
            self.query.jscallback(
                value="history.replaceState(null, '', location.pathname + cb_obj.value)"
            )
        Callback(
            self.snr.now,
            code={"location": "slider.value = Math.round(source.location * 10) / 10"},
            args={"slider": self.controls.numbers["snr"].slider},
        )
        self.pictures = {"spectrum": picture(self.spectrum.density)}
        self.pictures["levels"] = picture(self.spectrum.levels)
        self.pictures["snr"] = picture(self.snr.figure)
        self.ratio_panes = {key: picture(fig) for key, fig in self.ratios.figures.items()}
        left = pn.Column(
            self.head, self.alert, self.controls.box, pn.Row(self.simulate, self.stop),
            self.progress, self.status, self.facts, sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        right = pn.Column(
            text("<h2>Spectrum</h2>"), self.pictures["spectrum"], self.pictures["levels"],
            text("<h2>Eigenvalues against SNR</h2>"), self.pictures["snr"],
            text("<h2>Misclassification against ratios</h2>"),
            pn.Column(
                *self.ratio_panes.values(), stylesheets=[RATIOS_GRID],
                sizing_mode="stretch_width", margin=0,
            ),
            text("<h2>Levels</h2>"), self.table, self.download,
            text("<h2>In Python</h2>"), self.code, self.copy, self.copied, self.query,
            sizing_mode="stretch_width", margin=0,
        )  # fmt: skip
        self.view = pn.Column(left, right, stylesheets=[GRID], sizing_mode="stretch_width")

    @property
    def alpha(self) -> float:
        """The number in use; before a fit has measured it, the Bayes classifier's stands in."""
        if isinstance(self.state.alpha, float):
            return self.state.alpha
        if self.state in self.measured:
            return self.measured[self.state]["fitted_alpha"]
        return bayes_alpha(self.state.num_classes, self.state.snr)

    def moved(self, name: str, value: Any) -> None:
        """A control was moved: what was simulated for the old view, or still runs, is dropped."""
        try:
            state = self.state.moved(**{name: value})
        except (TypeError, ValueError) as error:
            self._messages((str(error),))
            return
        if state == self.state:
            return
        self.cancel("")
        self.state, self.draws = state, []
        self._messages(())
        self.show()

    def show(self) -> None:
        """Fill everything in from the state."""
        if self.state.alpha == "measured" and self.state not in self.measured and not self.job:
            self.start("fit")
        state, alpha = self.state, self.alpha
        along = None if state.alpha == "bayes" else alpha
        with pn.io.hold():
            self.rows = level_rows(state, alpha) + simulated_rows(self.draws, state)
            self.controls.set(state, alpha)
            self.spectrum.show(state, alpha, self.rows, self.draws)
            self.snr.show(state, along)
            for key, exists in self.ratios.show(state, along).items():
                self.ratio_panes[key].visible = exists
            self.table.object = _table(self.rows)
            lines = python_lines(state)
            self.code.object = f"<pre>{escape(lines)}</pre>"
            self.copied.value, self.query.value = lines, state.query()
            delta = state.dim / (state.per_class * state.num_classes)
            self.facts.object = (
                f"<p>α = <span id='alpha'>{alpha:.6g}</span>, D/(NC) = {delta:.4g}, Bayes error "
                f"<span id='error'>{state.model.bayes_error():.6g}</span></p>"
            )
        pn.io.push_notebook(*self.pictures.values(), *self.ratio_panes.values())

    def start(self, task: str) -> None:
        """Begin a simulation or a fit in a process of its own."""
        self.cancel("")
        state = self.state
        try:
            check_simulation(state.model, state.per_class, task)
        except ValueError as error:
            self._messages((str(error),))
            return
        request = {
            "task": task, "dim": state.dim, "num_classes": state.num_classes, "snr": state.snr,
            "per_class": state.per_class, "seed": state.seed, "alpha": self.alpha, "draws": DRAWS,
        }  # fmt: skip
        self.job = Job(request)
        if task == "spectrum":
            self.draws = []
        self.progress.value = 0
        self.progress.visible = self.stop.visible = True
        self._say("starting")
        if self.timer is None:
            self.timer = pn.state.add_periodic_callback(self.look, period=POLL, start=False)
        if not self.timer.running:
            self.timer.start()

    def look(self) -> None:
        """Take what a running job has found."""
        if self.job is None:
            return
        changed = False
        for message in self.job.poll():
            if "stage" in message:
                self.progress.value = int(100 * message["done"] / message["total"])
                self._say(message["stage"])
            elif "spectrum" in message:
                self.draws.append(np.array(message["spectrum"]))
                changed = True
            elif "fitted_alpha" in message:
                self.measured[self.state] = message
                changed = True
            else:
                self._messages((message["error"],))
        if self.job.finished:
            self.cancel(f"{len(self.draws)} draws" if self.draws else "")
            if self.state in self.measured:
                error = self.measured[self.state]["train_error"]
                self._say(f"fitted; misclassification on its samples {error:.4g}")
        if changed:
            self.show()

    def cancel(self, words: str) -> None:
        """End a running job, if there is one."""
        if self.job is not None:
            self.job.cancel()
            self.job = None
        if self.timer is not None and self.timer.running:
            self.timer.stop()
        self.progress.visible = self.stop.visible = False
        self._say(words)

    def _say(self, words: str) -> None:
        self.status.object = f"<p id='status'>{escape(words)}</p>"

    def _messages(self, messages: tuple[str, ...]) -> None:
        said = "".join(f"<p>{escape(message)}</p>" for message in messages)
        self.alert.object = f"<div class='bad' role='alert'>{said}</div>" if said else ""


def _table(rows: list[Row]) -> str:
    """The levels as HTML; the numbers of the library to six digits."""
    lines = []
    for row in rows:
        if row.eigenvalue is not None:
            value = f"{row.eigenvalue:.6g}"
        elif row.low is not None and row.high is not None:
            value = f"{row.low:.6g} to {row.high:.6g}"
        else:
            value = "in the bulk"
        noise = "" if row.deviation is None else f" ± {row.deviation:.2g}"
        count = "" if row.multiplicity is None else f"{row.multiplicity}"
        from_snr = "" if row.detached_from_snr is None else f"{row.detached_from_snr:.4g}"
        lines.append(
            f"<tr><td title='{LEVELS[row.level]}'>{row.level}</td><td>{row.group}</td>"
            f"<td class='n'>{value}{noise}</td><td class='n'>{count}</td>"
            f"<td class='n'>{from_snr}</td></tr>"
        )
    heads = "<th>level</th><th>group</th><th class='n'>eigenvalue</th>"
    heads += "<th class='n'>times</th><th class='n'>detached from t, at this α</th>"
    body = "".join(lines)
    said = "; ".join(f"{level} {words}" for level, words in LEVELS.items())
    return (
        f"<p>Levels: {said}.</p><div class='scroll'><table id='levels'>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def session() -> Any:
    """The page of one visit, as its address asks."""
    pn.extension()
    location = pn.state.location
    state, messages = parse_query((location.search if location else "") or "")
    page = Page(state, messages, served=True)
    pn.state.on_session_destroyed(lambda _: page.cancel(""))
    return page.view


def serve(host: str, port: int, show: bool) -> None:
    """Serve the page until interrupted.

    Raises
    ------
    OSError
        If the port is taken.
    """
    origins = [f"{host}:{port}"]
    if host in ("127.0.0.1", "::1", "localhost"):
        origins = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    pn.serve(
        {"/": session}, address=host, port=port, show=show, websocket_origin=origins,
        title="ccm explore", verbose=False, threaded=False,
    )  # fmt: skip
