"""The page: which run, which split, which knockouts; pictures, a table, the findings."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import panel as pn

from deepspec.attribution import CLAIMS, SplitAttribution
from deepspec.attribution.summary import removed
from deepspec.explore.figures import SpectrumFigures
from deepspec.explore.runs import Runs
from deepspec.explore.view import View, parse_query
from deepspec.report.plots.style import PARTS

TEXT = """
:host { font: 14px/1.45 system-ui, sans-serif; color: #222; max-width: 1100px; }
h1 { font-size: 20px; margin: 0; } h2 { font-size: 16px; margin: 8px 0 0; } p { margin: 4px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 2px 12px 2px 0; border-bottom: 1px solid #DDD; }
td.n, th.n { text-align: right; white-space: nowrap; }
.key { margin-right: 12px; white-space: nowrap; }
.key i { display: inline-block; width: 11px; height: 11px; }
.bad { background: #FBE3D6; border-left: 4px solid #D55E00; padding: 6px 10px; }
"""
FRAME = ":host { box-sizing: border-box; padding: 8px; max-width: 1120px; margin: 0 auto; }"
KEY = (
    "<p>"
    + " ".join(
        f"<span class='key'><i style='background:{look.colour}'></i> {escape(look.name)}</span>"
        for look in PARTS.values()
    )
    + "</p>"
)


class Page:
    """One visitor's page. ``view`` is what is shown."""

    def __init__(
        self,
        runs: Runs,
        shown: View | None = None,
        messages: tuple[str, ...] = (),
        served: bool = False,
    ) -> None:
        pn.extension()
        self.runs, self.shown = runs, shown or View()
        self.figures = SpectrumFigures()
        self._panes(served)
        self._messages(messages)
        self.show()

    def _panes(self, served: bool) -> None:
        def text(html: str = "") -> Any:
            return pn.pane.HTML(html, stylesheets=[TEXT], sizing_mode="stretch_width", margin=0)

        self.head, self.alert, self.facts, self.table = text(), text(), text(), text()
        self.run = pn.widgets.IntSlider(
            label="run", start=0, end=max(1, len(self.runs.names) - 1), value=self.shown.run,
            visible=len(self.runs.names) > 1, sizing_mode="stretch_width",
        )  # fmt: skip
        self.split = pn.widgets.RadioButtonGroup(options=["train"], value="train")
        self.without = pn.widgets.CheckBoxGroup(
            options={f"without {look.name}": part for part, look in PARTS.items()},
            value=list(self.shown.without),
        )  # fmt: skip
        self.query = pn.widgets.TextInput(value=self.shown.query(), visible=False)
        if served:  # in a notebook the address is the notebook's own
            self.query.jscallback(
                value="history.replaceState(null, '', location.pathname + cb_obj.value)"
            )
        self.run.param.watch(lambda event: self.move(run=event.new), "value")
        self.split.param.watch(lambda event: self.move(split=event.new), "value")
        self.without.param.watch(lambda event: self.move(without=tuple(event.new)), "value")
        self.pictures = [
            pn.pane.Bokeh(picture, sizing_mode="stretch_width", margin=0)
            for picture in (self.figures.by_cause, self.figures.left)
        ]
        self.view = pn.Column(
            self.head, self.alert, self.run, self.split, self.facts,
            text("<h2>G, each eigenvalue shared out among its causes</h2><p>Dots are the largest "
                 f"eigenvalues: point at one for its shares. Dashed: edge of the bulk.</p>{KEY}"),
            self.pictures[0],
            text("<h2>What knockouts leave</h2><p>Tick them on and off. Black: G. In colour: what "
                 "is left, with triangles at its largest eigenvalues.</p>"),
            self.without, self.pictures[1], self.table, self.query,
            stylesheets=[FRAME], sizing_mode="stretch_width",
        )  # fmt: skip

    def move(self, **changes: Any) -> None:
        """A control was moved."""
        now = {"run": self.shown.run, "split": self.shown.split, "without": self.shown.without}
        moved = View(**{**now, **changes})
        if moved != self.shown:
            self.shown = moved
            self._messages(())
            self.show()

    def show(self) -> None:
        """Fill everything in from the view."""
        try:
            found = self.runs.load(self.shown.run)
        except (OSError, ValueError) as error:
            self._messages((f"{self.runs.names[self.shown.run]}: {error}",))
            return
        splits = list(found.splits)
        if self.shown.split not in splits:
            self._messages((f"this run has no {self.shown.split} split; train is shown",))
            self.shown = View(run=self.shown.run, without=self.shown.without)
        split = found.splits[self.shown.split]
        with pn.io.hold():
            self.split.options, self.split.value = splits, self.shown.split
            self.split.visible = len(splits) > 1
            self.run.value = self.shown.run
            self.without.value = list(self.shown.without)
            self.head.object = f"<h1 id='run'>{escape(self.runs.names[self.shown.run])}</h1>"
            self.facts.object = _facts(split, found.parameters, found.num_classes)
            self.figures.show(split, self.shown.without)
            self.table.object = _table(split)
            self.query.value = self.shown.query()
        pn.io.push_notebook(*self.pictures)

    def _messages(self, messages: tuple[str, ...]) -> None:
        said = "".join(f"<p>{escape(message)}</p>" for message in messages)
        self.alert.object = f"<div class='bad' role='alert'>{said}</div>" if said else ""


def _facts(split: SplitAttribution, parameters: int, classes: int) -> str:
    how = "exact" if split.exact else "estimated by Lanczos"
    return (
        f"<p>{parameters:,} parameters, {classes} classes, {split.samples:,} samples, error "
        f"{split.error_rate:.2%}, loss {split.loss:.3g}. Spectra of G: {how}. Largest eigenvalue "
        f"<span id='largest'>{float(split.top[0]):.6g}</span>, edge of the bulk "
        f"<span id='edge'>{split.edge:.6g}</span>.</p>"
    )


def _table(split: SplitAttribution) -> str:
    """The claims, and the largest eigenvalue that each knockout leaves."""
    claims = "".join(
        f"<tr><td>{escape(CLAIMS[f.claim].feature)}</td><td>{escape(CLAIMS[f.claim].cause)}</td>"
        f"<td>{escape(removed(f))}</td><td>{escape(f.answer)}</td></tr>"
        for f in split.findings
    )
    left = "".join(
        f"<tr><td>{escape(look.name)}</td>"
        f"<td class='n'>{_number(float(split.knockout(part).subtracted[0]))}</td>"
        f"<td class='n'>{_number(float(split.knockout(part).projected[0]))}</td></tr>"
        for part, look in PARTS.items()
    )
    return (
        "<h2>Largest eigenvalue without …</h2><div class='scroll'><table id='left'><thead><tr>"
        "<th>part</th><th class='n'>subtracted</th><th class='n'>projected off</th></tr></thead>"
        f"<tbody>{left}</tbody></table></div>"
        "<h2>Verdicts</h2><div class='scroll'><table id='verdicts'><thead><tr><th>feature</th>"
        "<th>said cause</th><th>goes with it</th><th>verdict</th></tr></thead>"
        f"<tbody>{claims}</tbody></table></div>"
    )


def _number(value: float) -> str:
    """NaN stands for what would have taken too long."""
    return "not measured" if math.isnan(value) else f"{value:.6g}"


def serve(runs: Runs, host: str, port: int) -> None:
    """Serve the page until interrupted.

    Raises
    ------
    OSError
        If the port is taken.
    """

    def session() -> Any:
        pn.extension()
        location = pn.state.location
        query = (location.search if location else "") or ""
        shown, messages = parse_query(query, len(runs.folders))
        return Page(runs, shown, messages, served=True).view

    origins = [f"{host}:{port}"]
    if host in ("127.0.0.1", "::1", "localhost"):
        origins = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
    pn.serve(
        {"/": session}, address=host, port=port, show=False, websocket_origin=origins,
        title="deepspec explore", verbose=False, threaded=False,
    )  # fmt: skip
