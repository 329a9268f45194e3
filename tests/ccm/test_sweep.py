"""Simulation, the journal, and sweeps that survive a kill."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.linalg import ArpackNoConvergence

from ccm import (
    CanonicalClassificationModel,
    ConvergenceError,
    GroupMeans,
    ResumeError,
    SeparableDataError,
    bayes_spectrum,
    empirical_fim,
    fim_trace,
    group_means,
    leading_eigenvalues,
    simulate,
    simulation,
    snr_sweep,
    spectrum_group_means,
    symmetric_spectrum,
)
from ccm.resume import Journal, write_atomically
from ccm.simulation import check_memory
from ccm.sweep import UNIT_COLUMNS

SMALL = {"dim": 6, "num_classes": 3, "snrs": [1.0, 2.0], "per_class": 40, "replicates": 2}


def test_group_means_by_dense_eigenvalues() -> None:
    model = CanonicalClassificationModel(7, 3, 2.0)
    X, _ = model.sample(30, 0)
    p = model.bayes_probabilities(X)
    values = np.linalg.eigvalsh(empirical_fim(X, p))[::-1]
    groups = group_means(X, p, outliers=2)
    assert groups.outliers == pytest.approx(values[:2].mean())
    assert groups.mini_bulk == pytest.approx(values[2:6].mean())
    assert groups.bulk == pytest.approx(values[6:14].mean())


def test_leading_eigenvalues_by_lanczos_are_the_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CanonicalClassificationModel(40, 4, 3.0)
    X, _ = model.sample(30, 0)
    p = model.bayes_probabilities(X)
    dense = leading_eigenvalues(X, p, 12)
    monkeypatch.setattr(simulation, "DENSE_LIMIT", 10)
    np.testing.assert_allclose(leading_eigenvalues(X, p, 12), dense, rtol=1e-8)


def test_without_a_bulk_the_outliers_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """At D = C the C(C-1) leading eigenvalues have all of the trace, and 99 do for C = 100."""
    model = CanonicalClassificationModel(4, 4, 2.0)
    X, _ = model.sample(30, 0)
    p = model.bayes_probabilities(X)
    values = np.linalg.eigvalsh(empirical_fim(X, p))[::-1]
    counts = []
    original = leading_eigenvalues

    def counted(*arguments: object) -> np.ndarray:
        counts.append(arguments[2])
        return original(*arguments)

    monkeypatch.setattr(simulation, "leading_eigenvalues", counted)
    groups = group_means(X, p, outliers=3)
    assert counts == [3]
    assert groups.mini_bulk == pytest.approx(values[3:12].mean())
    assert math.isnan(groups.bulk)


@pytest.mark.parametrize("dense_limit", [10, 2500])
def test_certain_samples_have_a_spectrum_of_zeros(
    dense_limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """α = 0, or Bayes probabilities at t = 60: the FIM is zero, and ARPACK cannot start."""
    monkeypatch.setattr(simulation, "DENSE_LIMIT", dense_limit)
    model = CanonicalClassificationModel(20, 3, 60.0)
    X, y = model.sample(5, 0)
    for p in (np.eye(3)[y], model.bayes_probabilities(X)):
        assert not leading_eigenvalues(X, p, 6).any()
        assert group_means(X, p, outliers=2) == GroupMeans(0.0, 0.0, 0.0)


@pytest.mark.parametrize("dense_limit", [10, 2500])
@pytest.mark.parametrize("snr", [8.0, 12.0, 16.0])
def test_groups_of_a_tiny_fim_are_those_of_a_multiple(
    dense_limit: int, snr: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The FIM of X/ε is that of X over ε²: ARPACK's tolerance must not know the unit."""
    monkeypatch.setattr(simulation, "DENSE_LIMIT", dense_limit)
    model = CanonicalClassificationModel(20, 3, snr)
    X, _ = model.sample(30, 0)
    p = model.bayes_probabilities(X)
    unit = 1 / math.sqrt(fim_trace(X, p))
    found, expected = leading_eigenvalues(X, p, 6), leading_eigenvalues(unit * X, p, 6)
    np.testing.assert_allclose(found * unit**2, expected, rtol=0, atol=1e-12)
    values = np.linalg.eigvalsh(empirical_fim(unit * X, p))[::-1][:6]
    np.testing.assert_allclose(expected, values, rtol=0, atol=1e-12)
    assert group_means(X, p, outliers=2).bulk >= 0


def test_theory_at_a_huge_signal_keeps_its_bulk() -> None:
    """The outliers are 1e18 times the bulk: a difference from the trace would leave nothing."""
    model = CanonicalClassificationModel(6, 3, 1e9)
    spectrum = symmetric_spectrum(model, 0.3)
    groups = spectrum_group_means(spectrum, model, outliers=3)
    assert groups.bulk == pytest.approx(spectrum.level("bulk").value, rel=1e-14)


def test_simulation_agrees_with_theory() -> None:
    model = CanonicalClassificationModel(12, 3, 2.0)
    result = simulate(model, per_class=20_000, seed=0, alpha=0.2, weight_decay=0.0)
    level_1 = spectrum_group_means(symmetric_spectrum(model, 0.2), model, outliers=3)
    level_3 = spectrum_group_means(bayes_spectrum(model), model, outliers=2)
    for found, theory in (
        (result.symmetric, level_1),
        (result.bayes, level_3),
        (result.fitted, level_3),
    ):
        assert found.outliers == pytest.approx(theory.outliers, rel=0.03)
        assert found.mini_bulk == pytest.approx(theory.mini_bulk, rel=0.05)
        assert found.bulk == pytest.approx(theory.bulk, rel=0.03)
    assert result.fitted_alpha == pytest.approx(model.bayes_alpha(), rel=0.03)
    assert result.test_error == pytest.approx(model.bayes_error(), rel=0.05)


def test_lanczos_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ArpackNoConvergence("no convergence", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr(simulation, "DENSE_LIMIT", 10)
    monkeypatch.setattr(simulation, "eigsh", fail)
    with pytest.raises(ConvergenceError, match=r"ARPACK did not find the 2 .* D·C up to 10 all"):
        leading_eigenvalues(np.eye(10), np.full((10, 2), 0.5), 2)


def test_bad_simulations() -> None:
    model = CanonicalClassificationModel(6, 3, 2.0)
    X, p = np.ones((4, 6)), np.full((4, 3), 1 / 3)
    with pytest.raises(ValueError, match=r"count must be from 1 to D·C = 18"):
        leading_eigenvalues(X, p, 19)
    for count in (1.5, True, "1"):
        with pytest.raises(TypeError, match="count must be an integer"):
            leading_eigenvalues(X, p, count)
    with pytest.raises(ValueError, match=r"the 4950 .* 98.4 GiB, above 4 GiB; .* at most 200 fit"):
        check_memory(1_333_333, 4950)
    with pytest.raises(ValueError, match=r"C\(C-1\) of them: take fewer classes, or a lower dim"):
        simulate(CanonicalClassificationModel(2000, 100, 1.0), 10**9, 0)
    with pytest.raises(ValueError, match=r"1 to C\(C-1\) = 6 outliers"):
        group_means(X, p, outliers=7)
    with pytest.raises(ValueError, match="groups need D ≥ C"):
        group_means(np.ones((4, 2)), p, outliers=1)
    with pytest.raises(ValueError, match=r"18 eigenvalues, but CCM\(5, 3\) has 15"):
        spectrum_group_means(
            bayes_spectrum(model), CanonicalClassificationModel(5, 3, 2.0), outliers=2
        )
    with pytest.raises(ValueError, match="per_class must be at least 1"):
        simulate(model, 0, 0)
    with pytest.raises(ValueError, match="alpha"):
        simulate(model, 10, 0, alpha=0.9)
    with pytest.raises(SeparableDataError):
        simulate(CanonicalClassificationModel(40, 3, 8.0), 5, 0, weight_decay=0.0)
    assert issubclass(SeparableDataError, ValueError)
    assert issubclass(ConvergenceError, RuntimeError)


@pytest.mark.parametrize("alpha", ["bayes", "measured", 0.25])
def test_a_sweep_is_theory_beside_simulation(alpha: str | float) -> None:
    table = snr_sweep(**SMALL, alpha=alpha)
    assert table.column("snr").tolist() == [1, 2]
    for row in table.rows:
        model = CanonicalClassificationModel(6, 3, row["snr"])
        theory = symmetric_spectrum(model, row["alpha"])
        assert row["level1_outliers"] == theory.level("outliers").value
        assert row["level3_outliers"] == bayes_spectrum(model).level("outliers").value
        assert row["bayes_error"] == model.bayes_error()
        ratio = row["level1_outliers"] / row["level1_bulk"]
        assert row["level1_outliers_over_bulk"] == pytest.approx(ratio)
        expected = {"bayes": model.bayes_alpha(), 0.25: 0.25}.get(alpha, row["fitted_alpha"])
        assert row["alpha"] == pytest.approx(expected)
        assert row["fitted_outliers_se"] > 0


def test_replicates_are_those_of_simulate() -> None:
    table = snr_sweep(**SMALL, alpha=0.25, seed=3)
    draws = [
        simulate(
            CanonicalClassificationModel(6, 3, 2.0), 40, np.random.default_rng([3, 1, r]), 0.25
        )
        for r in range(2)
    ]
    errors = np.array([draw.test_error for draw in draws])
    assert table.column("test_error")[1] == errors.mean()
    assert table.column("test_error_se")[1] == pytest.approx(errors.std(ddof=1) / math.sqrt(2))


def test_two_classes_and_no_noise_directions() -> None:
    table = snr_sweep(2, 2, [0.0, 1.0], per_class=30, replicates=2)
    assert np.isnan(table.column("level1_mini_bulk")).all()
    assert np.isnan(table.column("level1_bulk")).all()
    assert ",," in table.to_csv()
    assert table.records()[0]["level1_bulk"] is None


def test_the_csv_holds_the_numbers_exactly(tmp_path: Path) -> None:
    table = snr_sweep(**SMALL)
    table.save(tmp_path / "sweep.csv")
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, table.rows, strict=True):
        for name, value in expected.items():
            assert (row[name] == "" and math.isnan(value)) or float(row[name]) == value


def test_an_interrupted_sweep_resumes_with_nothing_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = snr_sweep(**SMALL).to_csv()
    resume = tmp_path / "resume"

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snr_sweep(**SMALL, resume=resume, progress=stop)
    assert len(json.loads(resume.read_text())["units"]) == 3
    calls = []
    original = simulate

    def counted(*arguments: object) -> object:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr("ccm.sweep.simulate", counted)
    assert snr_sweep(**SMALL, resume=resume).to_csv() == whole
    assert len(calls) == 1


def test_a_killed_command_resumes_bit_for_bit(tmp_path: Path) -> None:
    """kill -9 at some instant, then the same command again: the CSV of an undisturbed run."""
    command = [sys.executable, "-m", "ccm", "sweep", "--snr", "1:3:6", "--classes", "3"]
    command += ["--dim", "12", "--per-class", "400", "--replicates", "4", "--out"]
    subprocess.run([*command, str(tmp_path / "whole.csv")], check=True, capture_output=True)
    out, resume = tmp_path / "cut.csv", tmp_path / "cut.csv.resume"
    process = subprocess.Popen(
        [*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not resume.exists():
        time.sleep(0.002)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode != 0
    assert not out.exists()
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not resume.exists()


def test_a_resume_file_of_another_configuration_names_the_difference(tmp_path: Path) -> None:
    resume = tmp_path / "resume"
    snr_sweep(**SMALL, resume=resume)
    with pytest.raises(ResumeError, match="seed was 0 and is now 1"):
        snr_sweep(**SMALL, seed=1, resume=resume)
    with pytest.raises(ResumeError, match=r"alpha was 'bayes' and is now 0\.2"):
        snr_sweep(**SMALL, alpha=0.2, resume=resume)
    resume.write_text("{")
    with pytest.raises(ResumeError, match="not a file to resume from"):
        snr_sweep(**SMALL, resume=resume)
    resume.write_text("[1]")
    with pytest.raises(ResumeError, match="not a file to resume from"):
        snr_sweep(**SMALL, resume=resume)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("units", [], "not a file to resume from"),
        ("units", None, "not a file to resume from"),
        ("configuration", "x", "not a file to resume from"),
        ("configuration", None, "not a file to resume from"),
        ("units", {"0/0": 5}, "damaged: unit '0/0' does not hold the 22 numbers"),
        ("units", {"0/0": {}}, "damaged: unit '0/0'"),
        ("units", {"0/0": None}, "damaged: unit '0/0'"),
        ("units", {"0/0": dict.fromkeys(UNIT_COLUMNS, "1")}, "damaged: unit '0/0'"),
        ("units", {"0/0": dict.fromkeys([*UNIT_COLUMNS, "x"], 1.0)}, "damaged: unit '0/0'"),
    ],
)
def test_a_damaged_resume_file_is_refused_before_any_work(
    part: str, value: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = tmp_path / "resume"
    snr_sweep(**SMALL, resume=resume)
    content = json.loads(resume.read_text())
    resume.write_text(json.dumps({**content, part: value}))
    monkeypatch.setattr("ccm.sweep.simulate", None)  # any call fails
    with pytest.raises(ResumeError, match=message):
        snr_sweep(**SMALL, resume=resume)


def test_numpy_numbers_are_plain_in_the_resume_file(tmp_path: Path) -> None:
    resume = tmp_path / "resume"
    arguments = {**SMALL, "alpha": 0.25, "seed": 3, "weight_decay": 0.5}
    plain = snr_sweep(**arguments).to_csv()
    for name in ("dim", "num_classes", "per_class", "replicates", "seed"):
        arguments[name] = np.int64(arguments[name])
    for name in ("alpha", "weight_decay"):
        arguments[name] = np.float32(arguments[name])
    arguments["snrs"] = np.array(SMALL["snrs"])
    assert snr_sweep(**arguments, resume=resume).to_csv() == plain
    assert json.loads(resume.read_text())["configuration"]["seed"] == 3


def test_a_sweep_at_huge_snr_has_ratios_above_zero_or_none() -> None:
    """Samples are certain: what is left of the FIM is 1e-28, and its bulk less than rounding."""
    table = snr_sweep(5, 3, [10.0, 12.0], per_class=30, replicates=2)
    for name in table.columns:
        if name.startswith(("level3_", "sampled_bayes_")):
            values = table.column(name)
            assert ((values >= 0) | np.isnan(values)).all(), name
    assert (table.column("level3_outliers_over_bulk") > 1).all()


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_a_journal_keeps_floats_exactly(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    Journal(tmp_path / "j", {"a": (1,)}, ["x", "y"]).record("u", {"x": value, "y": math.nan})
    found = Journal(tmp_path / "j", {"a": [1]}, ["x", "y"]).get("u")
    assert found is not None
    assert found["x"] == value
    assert math.isnan(found["y"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"snrs": []}, ValueError, "at least one SNR"),
        ({"snrs": [-1.0]}, ValueError, "snr must be finite"),
        ({"snrs": [1.0, 70.0]}, ValueError, "SNR from 0 to 64, got 70"),
        ({"snrs": [1.0, 1.0]}, ValueError, "SNRs must ascend"),
        ({"snrs": [2.0, 1.0]}, ValueError, "SNRs must ascend"),
        ({"snrs": ["1"]}, TypeError, "snr must be a number"),
        ({"alpha": True}, TypeError, "alpha must be a number"),
        ({"weight_decay": "a"}, TypeError, "weight_decay must be a number"),
        ({"dim": 2}, ValueError, "dim must be at least"),
        ({"alpha": "best"}, ValueError, "'bayes' or 'measured', got 'best'"),
        ({"alpha": 0.9}, ValueError, "from 0 to 1 - 1/C"),
        ({"per_class": 0}, ValueError, "per_class must be at least 1"),
        ({"replicates": 1}, ValueError, "replicates must be at least 2"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be finite"),
        ({"per_class": 1.5}, TypeError, "per_class must be an integer"),
    ],
)
def test_bad_sweeps(
    change: dict, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccm.sweep.simulate", None)  # refused before any work
    with pytest.raises(error, match=message):
        snr_sweep(**{**SMALL, **change})


def test_unknown_columns() -> None:
    with pytest.raises(ValueError, match="no column 'level4'"):
        snr_sweep(**SMALL).column("level4")
