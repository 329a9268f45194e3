"""Simulations in a process of their own; the command; what is asked without Panel."""

import socket
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ccm
from ccm.cli.commands import app
from ccm.cli.exploring import free_port
from ccm.explore import require_panel
from ccm.explore.draws import check_simulation, messages
from ccm.explore.job import Job
from ccm.explore.script import python_lines
from ccm.explore.simulated import simulated_rows
from ccm.explore.state import ViewState

REQUEST = {
    "dim": 6, "num_classes": 3, "snr": 2.0, "per_class": 50, "seed": 4, "alpha": 0.2, "draws": 2,
}  # fmt: skip


def test_draws_are_the_library_s() -> None:
    spectra = [m["spectrum"] for m in messages({**REQUEST, "task": "spectrum"}) if "spectrum" in m]
    model = ccm.CanonicalClassificationModel(6, 3, 2.0)
    for draw, found in enumerate(spectra):
        X, y = model.sample(50, 4 + draw)
        fim = ccm.empirical_fim(X, ccm.symmetric_probabilities(3, 0.2)[y])
        np.testing.assert_array_equal(found, np.linalg.eigvalsh(fim)[::-1])
    assert len(spectra) == 2
    rows = simulated_rows([np.array(s) for s in spectra], ViewState(dim=6, num_classes=3))
    assert [(row.group, row.multiplicity) for row in rows] == [
        ("outliers", 3), ("mini-bulk", 3), ("bulk", 6),
    ]  # fmt: skip
    assert all((row.deviation or 0) > 0 for row in rows)
    assert simulated_rows([], ViewState()) == []


def test_a_fit_measures_alpha_as_simulate_does() -> None:
    fitted = list(messages({**REQUEST, "task": "fit"}))[-1]["fitted_alpha"]
    model = ccm.CanonicalClassificationModel(6, 3, 2.0)
    assert fitted == ccm.simulate(model, 50, seed=4).fitted_alpha
    names: dict[str, Any] = {}
    state = ViewState(dim=6, num_classes=3, snr=2.0, per_class=50, alpha="measured", seed=4)
    exec(python_lines(state), names)
    assert names["alpha"] == pytest.approx(fitted, rel=1e-9)


def test_a_job_reports_errors_and_can_be_cancelled() -> None:
    found = Job({**REQUEST, "task": "spectrum", "dim": 6000}).wait()
    assert "at most D·C = 10000, got 18000" in found[-1]["error"]
    dead = Job({"task": "fit"})  # no model in it: the process ends with a KeyError
    assert "ended before its result" in dead.wait()[-1]["error"]
    slow = Job({**REQUEST, "task": "spectrum", "dim": 2000, "per_class": 1000})
    assert not slow.finished
    slow.cancel()
    assert slow.finished
    assert slow.poll() == []


def test_too_many_samples() -> None:
    model = ccm.CanonicalClassificationModel(1000, 10, 1.0)
    with pytest.raises(ValueError, match="lower N or D"):
        check_simulation(model, 1_000_000, "fit")


def test_without_panel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in (require_panel, ccm.explorer):
        monkeypatch.setitem(function.__globals__, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"deepspec-ccm\[explore\]"):
        require_panel()
    with pytest.raises(ImportError, match=r"deepspec-ccm\[explore\]"):
        ccm.explorer()
    monkeypatch.setattr("ccm.cli.exploring.require_panel", require_panel)
    result = CliRunner().invoke(app, ["explore"])
    assert (result.exit_code, "deepspec-ccm[explore]" in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["--dim", "5"], ["--alpha", "much"], ["--snr", "99"]])
def test_bad_arguments_of_the_command(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["explore", *arguments]).exit_code == 2


def test_a_taken_port_is_refused() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(OSError, match="give another --port"),
    ):
        free_port("127.0.0.1", server.getsockname()[1])


@pytest.mark.skipif(find_spec("panel") is None, reason="missing: panel, of the extra explore")
def test_a_notebook_gets_the_same_page() -> None:
    from ccm.explore.page import Page

    page = Page(ViewState(dim=20, num_classes=4, alpha=0.2))
    page.moved("snr", 2.0)
    model = ccm.CanonicalClassificationModel(20, 4, 2.0)
    found = [row.eigenvalue for row in page.rows if row.level == "1"]
    assert found == [level.value for level in ccm.symmetric_spectrum(model, 0.2).levels]
    page.moved("per_class", 2_000_000)  # as a box could ask: a message, and the view stays
    assert "per_class must be at most 1e+06" in page.alert.object
    assert page.state.per_class == 100
    assert len(ccm.explorer(dim=20, num_classes=2)) == 2
