"""Trace, norm, power laws and the count of outliers: exact where due, honest elsewhere."""

import numpy as np
import pytest
import torch

from deepspec.krylov import (
    Eigenpairs,
    Estimate,
    count_outliers,
    fit_power_law,
    frobenius_norm,
    log_spectral_density,
    spectral_density,
    top_eigenpairs,
    trace,
)
from deepspec.operators.projectors import ColumnSpace
from tests.deepspec.krylov.cases import SPECTRA, Diagonal, eigenvalues, rotated


def pairs_of(values: torch.Tensor) -> Eigenpairs:
    zeros = torch.zeros_like(values)
    vectors = torch.eye(len(values))
    return Eigenpairs(values=values, vectors=vectors, residuals=zeros, matvecs=0)


BROAD = {
    "flat": torch.linspace(1, 1.01, 200, dtype=torch.float64),
    "spikes": torch.cat([torch.tensor([10.0, 5, 3]), torch.linspace(0, 1, 197)]).double(),
    "geometric": 0.9 ** torch.arange(200, dtype=torch.float64),
    "indefinite": torch.linspace(-1, 2, 200, dtype=torch.float64),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_enough_products_are_exact(name: str) -> None:
    values = eigenvalues(name)
    A = rotated(values)
    scale = 1e-9 * max(1.0, float(values.abs().sum()))
    assert abs(trace(A, max(4, 2 * A.size)).value - float(values.sum())) < scale
    assert abs(frobenius_norm(A, max(4, 2 * A.size)).value - float(values.norm())) < scale


@pytest.mark.parametrize("matvecs", [6, 20, 60])
@pytest.mark.parametrize("name", BROAD)
def test_standard_errors_are_errors(name: str, matvecs: int) -> None:
    """1.96 of them cover 94 to 100 % for the trace, 89 to 99 % for the norm (150 seeds).

    The bars lie two binomial deviations of 60 seeds below that: 5.8 and 8.1 %.
    """
    A, values = Diagonal(BROAD[name]), BROAD[name]
    off, off_norm = [], []
    for seed in range(60):
        estimate = trace(A, matvecs, seed=seed)
        assert estimate.matvecs == matvecs
        off.append((estimate.value - float(values.sum())) / estimate.standard_error)
        estimate = frobenius_norm(A, matvecs, seed=seed)
        off_norm.append((estimate.value - float(values.norm())) / estimate.standard_error)
    assert A.matvecs == 60 * 2 * matvecs
    assert np.mean(np.abs(off) < 1.96) > 0.94 - 0.058
    assert np.mean(np.abs(off_norm) < 1.96) > (0.89 - 0.081 if matvecs == 6 else 0.85)
    for z in (off, off_norm):
        assert np.std(z) > 0.5
        assert np.std(z) < 1.7 or matvecs == 6


LOW = {
    "a long faint tail": torch.cat([torch.full((10,), 10.0), torch.full((99990,), 5e-6)]),
    "a geometric tail": 0.8 ** torch.arange(600.0),
    "rank ten": torch.cat([torch.linspace(1, 9, 10), torch.zeros(500)]),
    "as many products as there can be": torch.linspace(0, 1, 400),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", LOW)
def test_what_rounding_hides_is_in_the_standard_error(name: str, dtype: torch.dtype) -> None:
    """Also where the sketch shows all that A has: what is faint is neither lost nor denied."""
    A = Diagonal(LOW[name].to(dtype))
    wanted = A.diagonal.double()
    for estimate, truth in (
        (trace(A, 800 if "many" in name else 64), float(wanted.sum())),
        (frobenius_norm(A, 800 if "many" in name else 64), float(wanted.norm())),
    ):
        assert abs(estimate.value - truth) < 3 * estimate.standard_error
        assert 0 < estimate.standard_error < 1e-3 * truth


def test_the_trace_of_a_compression_is_that_of_what_is_left() -> None:
    values = eigenvalues("indefinite")
    A = rotated(values)
    B = A.project_out(ColumnSpace(torch.eye(60, dtype=torch.float64)[:, :50]))
    assert trace(B, 20).value == pytest.approx(float(torch.trace(A.matrix[50:, 50:])), abs=1e-10)


def test_bad_arguments_of_trace() -> None:
    A = Diagonal(torch.tensor([1.0, torch.nan, 2.0]))
    for estimator in (trace, frobenius_norm):
        with pytest.raises(ValueError, match="matvecs of at least 4, got 3"):
            estimator(A, 3)
        with pytest.raises(FloatingPointError, match="Diagonal"):
            estimator(A, 4)


def test_an_estimate_is_saved_and_loaded(tmp_path) -> None:
    estimate = trace(Diagonal(BROAD["flat"]), 10)
    estimate.save(tmp_path)
    assert Estimate.load(tmp_path) == estimate
    with pytest.raises(FileExistsError, match="holds 'Estimate'"):
        top_eigenpairs(Diagonal(BROAD["flat"]), 1).save(tmp_path)
    with pytest.raises(ValueError, match="found 'Estimate'"):
        Eigenpairs.load(tmp_path)


def test_a_power_law_is_found_with_its_prefactor() -> None:
    """λ = u^(−1/2), u uniform on (0.01, 1): density 2 λ^(−3)/0.99 on (1, 10)."""
    spectrum = torch.linspace(0.01, 1, 600, dtype=torch.float64) ** -0.5
    density = log_spectral_density(Diagonal(spectrum), 600, 20, points=300)
    for per, exponent in (("unit", 3.0), ("log", 2.0)):
        law = fit_power_law(density.redraw(per=per, kappa=1.0005), (1.3, 5.0))
        assert abs(law.exponent - exponent) < 3 * law.exponent_error + 0.05
        assert law.prefactor == pytest.approx(2.0, rel=0.35)
        assert law.r_squared > 0.97
    with pytest.raises(ValueError, match="at least 3 grid points"):
        fit_power_law(density, (1e3, 1e4))
    with pytest.raises(ValueError, match="0 < low < high"):
        fit_power_law(density, (5.0, 1.0))
    with pytest.raises(ValueError, match="side"):
        fit_power_law(density, (1.3, 5.0), side="upper")


def test_the_error_of_one_sides_law_is_of_that_side() -> None:
    """A handful of negative eigenvalues beside many positive ones: theirs is known less well."""
    many = torch.linspace(0.01, 1, 600, dtype=torch.float64) ** -0.5
    spectrum = torch.cat([many, -many[::30]])
    density = log_spectral_density(Diagonal(spectrum), 600, 1, points=300, kappa=1.0005)
    inside = (density.grid > 1.3) & (density.grid < 5)
    for side, least in (("positive", 0.9), ("negative", 2.0)):
        share = (density.standard_error_of(side) / getattr(density, side))[inside].median()
        both = (density.standard_error / density.values)[inside].median()
        assert share > least * both
    few = fit_power_law(density, (1.3, 5.0), "negative").exponent_error
    assert few > 2 * fit_power_law(density, (1.3, 5.0), "positive").exponent_error


@pytest.mark.parametrize("side", ["positive", "negative"])
def test_a_power_law_on_a_plain_density(side: str) -> None:
    spectrum = torch.linspace(0.05, 1, 500, dtype=torch.float64) ** -1.0
    A = Diagonal(spectrum if side == "positive" else -spectrum)
    density = spectral_density(A, 100, 10)
    law = fit_power_law(density, (2.0, 10.0), side)
    assert law.exponent == pytest.approx(2.0, abs=0.4)
    with pytest.raises(ValueError, match="side"):
        fit_power_law(density, (2.0, 10.0))


def test_outliers_are_counted_by_the_rule() -> None:
    bulk = torch.linspace(0, 1, 400).double()
    spectrum = torch.cat([bulk, torch.linspace(2, 9, 10).double()])
    pairs = top_eigenpairs(Diagonal(spectrum), 20)
    found = count_outliers(pairs)
    assert found.count == 10
    assert found.gap == pytest.approx(1.0, abs=1e-6)
    assert 0 < found.gap_error < 1e-4
    assert found.score > found.threshold
    mirrored = top_eigenpairs(Diagonal(-spectrum), 20, "smallest")
    assert count_outliers(mirrored, "smallest").count == 10
    assert count_outliers(mirrored, "largest").count == 0


def test_a_bulk_has_no_outliers() -> None:
    rng = np.random.default_rng(1)
    positives = 0
    for _ in range(60):
        normal = rng.standard_normal((200, 100))
        values = torch.from_numpy(np.linalg.eigvalsh(normal.T @ normal / 200)[::-1][:20].copy())
        positives += count_outliers(pairs_of(values)).count > 0
    assert positives <= 3


def test_a_gap_too_late_to_judge_asks_for_more() -> None:
    values = torch.tensor([9, 8.5, 8, 7.5, 7, 1, 0.9, 0.8, 0.7, 0.6]).double()
    pairs = pairs_of(values)
    with pytest.raises(ValueError, match=r"at least 11 .*gap of 6 after the first 5.*for more"):
        count_outliers(pairs)
    longer = torch.cat([values, torch.tensor([0.5, 0.4]).double()])
    assert count_outliers(pairs_of(longer)).count == 5
    with pytest.raises(ValueError, match="finite eigenvalues and residuals, got NaN"):
        count_outliers(pairs_of(values * torch.nan))


def test_bad_arguments_of_count_outliers() -> None:
    values = torch.arange(9.0).flip(0)
    pairs = pairs_of(values)
    with pytest.raises(ValueError, match="which="):
        count_outliers(pairs, "both")
    with pytest.raises(ValueError, match="threshold"):
        count_outliers(pairs, threshold=0.0)
    with pytest.raises(ValueError, match="window"):
        count_outliers(pairs, window=2)
    with pytest.raises(ValueError, match="at least 7 eigenvalues"):
        count_outliers(pairs_of(values[:5]))
