"""The figures draw, say what their axes are, and refuse what they cannot draw."""

from pathlib import Path

import numpy as np
import pytest

from ccm import CanonicalClassificationModel, finite_sample_law, snr_sweep
from ccm.plots.levels import new_figure, plot_bulk, plot_symmetric_against_bayes, save_figure
from ccm.plots.sweep import plot_eigenvalues, plot_misclassification
from ccm.sweep import SweepTable


@pytest.fixture(scope="module")
def table() -> SweepTable:
    return snr_sweep(20, 3, [1.0, 2.0, 4.0], per_class=30, replicates=2)


def test_eigenvalues_mark_the_transitions(table: SweepTable) -> None:
    figure = plot_eigenvalues(table)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any(text.startswith("mini-bulk detach at t = ") for text in texts)
    assert figure.axes[0].get_ylabel() == "eigenvalue of the FIM"


def test_misclassification_has_a_panel_a_ratio(table: SweepTable) -> None:
    labels = [axes.get_xlabel() for axes in plot_misclassification(table).axes]
    assert labels == ["outliers / bulk", "outliers / mini-bulk", "mini-bulk / bulk"]


@pytest.mark.parametrize("alpha", [0.0, 0.2, "measured"])
def test_eigenvalues_at_other_alphas(alpha: float | str, tmp_path: Path) -> None:
    table = snr_sweep(4, 2, [0.0, 2.0], per_class=30, replicates=2, alpha=alpha)
    save_figure(plot_eigenvalues(table), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("alpha", "per_class"), [(0.0, 5), (0.3, 1), (0.3, 200)])
def test_the_bulk_at_extremes(alpha: float, per_class: int, tmp_path: Path) -> None:
    law = finite_sample_law(CanonicalClassificationModel(20, 4, 3.0), alpha, per_class)
    save_figure(plot_bulk(law, np.linspace(0, 1, 80)), tmp_path / "a.png")


def test_a_vanished_fim_has_no_ratio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From t = 54 on α underflows (the integrals take seconds there, so it is put in by hand)."""
    monkeypatch.setattr(CanonicalClassificationModel, "bayes_alpha", lambda self: 0.0)
    figure = plot_symmetric_against_bayes(CanonicalClassificationModel(4, 2, 1.0), np.ones(2))
    save_figure(figure, tmp_path / "a.png")
    assert np.isnan(figure.axes[1].lines[0].get_ydata()).all()


def test_bad_figures(table: SweepTable, tmp_path: Path) -> None:
    one = snr_sweep(4, 2, [9.0], per_class=5, replicates=2)
    with pytest.raises(ValueError, match="at least two SNRs"):
        plot_eigenvalues(one)
    with pytest.raises(ValueError, match="every test error is zero"):
        plot_misclassification(one)
    model = CanonicalClassificationModel(4, 2, 1.0)
    with pytest.raises(ValueError, match="at least two SNRs"):
        plot_symmetric_against_bayes(model, np.array([1.0]))
    with pytest.raises(ValueError, match="D·C = 8 eigenvalues"):
        plot_bulk(finite_sample_law(model, 0.1, 5), np.ones(7))
    with pytest.raises(ValueError, match="cannot write a figure as"):
        save_figure(new_figure(1, 1), tmp_path / "a.doc")
