"""Densities: total mass, exactness where it is due, bands that are bands, what is removed."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepspec.krylov import (
    JoinedSpectrum,
    LogSpectralDensity,
    SpectralDensity,
    joined_spectrum,
    lanczos,
    log_spectral_density,
    spectral_density,
    top_eigenpairs,
)
from deepspec.krylov._smearing import bump_width
from deepspec.krylov.baselines import KernelPolynomialDensity, kernel_polynomial_density
from deepspec.operators.projectors import ColumnSpace
from deepspec.seeds import whole_seed
from tests.deepspec.krylov.cases import SPECTRA, Diagonal, eigenvalues, rotated


def smeared(values: torch.Tensor, density: SpectralDensity) -> torch.Tensor:
    """The spectrum itself, with the density's own bumps, at its grid."""
    edges = torch.cat([density.grid - density.spacing / 2, density.grid[-1:] + density.spacing / 2])
    edges[0], edges[-1] = -torch.inf, torch.inf
    below = torch.special.ndtr((edges[:, None] - values) / density.sigma).mean(dim=1)
    return below.diff() / density.spacing


def cumulative(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return (values <= points[:, None]).double().mean(dim=1)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("probes", [1, 3])
def test_the_total_mass_is_one(name: str, probes: int) -> None:
    A = rotated(eigenvalues(name))
    density = spectral_density(A, probes=probes, points=400)
    assert abs(float(density.values.sum()) * density.spacing - 1) < 1e-12
    assert float(density.cumulative()[0]) <= 1e-12
    assert float(density.cumulative()[-1]) == pytest.approx(1, abs=1e-12)
    assert (density.cumulative().diff() >= -1e-12).all()
    log = log_spectral_density(A, 64, probes, points=300)
    assert abs(float((log.positive + log.negative).sum()) * log.spacing - 1) < 1e-12
    per_unit = log.redraw(per="unit")
    assert abs(float((per_unit.values * per_unit.widths).sum()) - 1) < 1e-12
    series = kernel_polynomial_density(A, 20, probes, points=300)
    assert abs(float(series.values.sum()) * series.spacing - 1) < 1e-12


def test_it_is_the_papers_formula() -> None:
    """φ(t) = Σ w g_σ(t − θ), on the range of 32 steps with 5 % of margin."""
    A = rotated(eigenvalues("indefinite"))
    density = spectral_density(A, steps=60, points=1024)
    half = (density.grid[-1] - density.grid[0]) / 2
    sigma = bump_width(60, 3.0) * half
    assert sigma == pytest.approx(density.sigma)
    nodes, weights = density.ritz_values[0], density.ritz_weights[0]
    bumps = torch.exp(-((density.grid[:, None] - nodes) ** 2) / (2 * sigma**2))
    paper = (bumps @ weights) / (sigma * (2 * torch.pi) ** 0.5)
    # Ours are averages over cells; with this κ a cell is a fifth of σ.
    assert (density.values - paper).abs().max() < 0.01 * paper.max()


def test_weights_and_values_are_those_of_lanczos_from_the_same_probe() -> None:
    from deepspec.krylov._probes import unit_probe

    A = rotated(eigenvalues("spike near the bulk"))
    T = lanczos(A, 20, unit_probe(A, 7, 0))
    density = spectral_density(A, 20, seed=7)
    assert torch.allclose(density.ritz_values[0], T.ritz_values)
    assert torch.allclose(density.ritz_weights[0], T.ritz_weights)


@pytest.mark.parametrize("name", SPECTRA)
def test_a_full_run_gives_the_cumulative_distribution_itself(name: str) -> None:
    values = eigenvalues(name)
    density = spectral_density(rotated(values), len(values), reorthogonalize="full")
    found = density.quadrature.eigenvalues
    assert found is not None
    assert (found - values).abs().max() < 1e-10 * max(1.0, float(values.abs().max()))
    between = (values[1:] + values[:-1])[values.diff() > 1e-9] / 2
    assert torch.equal(density.quadrature.cumulative(between), cumulative(values, between))
    assert not bool(density.ghosts.any())
    assert spectral_density(rotated(values), 1).quadrature.eigenvalues is None or len(values) == 1
    with pytest.raises(ValueError, match='"none" or "full"'):
        spectral_density(rotated(values), 4, reorthogonalize="half")


@pytest.mark.parametrize("name", SPECTRA)
def test_a_full_run_leaves_nothing_open(name: str) -> None:
    """Each eigenvalue weighs 1/p in the curve too, and every band has the width 0."""
    values = eigenvalues(name)
    density = spectral_density(rotated(values), len(values), reorthogonalize="full")
    truth = smeared(density.quadrature.eigenvalues, density)
    assert (density.values - truth).abs().max() < 1e-9 * truth.max()
    assert not density.standard_error.any()
    for limits, curve in (
        (density.band(), density.values),
        (density.cumulative_band(), density.cumulative()),
        (density.cumulative_envelope(), density.cumulative()),
    ):
        for limit in limits:
            assert (limit - curve).abs().max() <= 1e-12 * curve.max()
    assert not density.quadrature_bound.any()
    log = log_spectral_density(rotated(values), len(values), reorthogonalize="full")
    share = float((values >= 0).double().mean())
    if "rank one" not in name and "zero" not in name:  # whose zeros are of either sign
        assert float(log.positive.sum()) * log.spacing == pytest.approx(share, abs=1e-9)
    assert not log.standard_error.any()


def test_redrawing_takes_no_product() -> None:
    A = Diagonal(torch.linspace(0, 1, 50, dtype=torch.float64))
    density = spectral_density(A, 30)
    taken = A.matvecs
    wide = density.redraw(kappa=1.1, points=77)
    assert A.matvecs == taken == 30
    assert wide.sigma > density.sigma
    assert wide.grid.shape == (77,)
    assert abs(float(wide.values.sum()) * wide.spacing - 1) < 1e-12


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=15), st.floats(0.1, 9), st.floats(-5, 5))
@example([1.1e-308], 1.0, 0.0)
@example([5e-324, 0.0], 1.0, 0.0)
@example([1e-200, -1e-200, 3e-200], 2.0, 0.0)
@settings(max_examples=25, deadline=None)
def test_equivariance_and_mass(values: list, scale: float, shift: float) -> None:
    spectrum = torch.tensor(values, dtype=torch.float64)
    plain = spectral_density(Diagonal(spectrum), 20, 2, points=50)
    moved = spectral_density(Diagonal(scale * spectrum + shift), 20, 2, points=50)
    assert abs(float(moved.values.sum()) * moved.spacing - 1) < 1e-10

    def mean(density: SpectralDensity) -> float:
        return float((density.ritz_weights * density.ritz_values).sum(1).mean())

    wanted = scale * mean(plain) + shift
    assert mean(moved) == pytest.approx(wanted, abs=1e-8 * (1 + abs(wanted)))
    assert (
        float(moved.quadrature.ritz_values.min()) >= float((scale * spectrum + shift).min()) - 1e-9
    )


COVERED = {
    "a bulk and spikes": lambda: torch.cat(
        [eigenvalues("spike near the bulk"), torch.tensor([8.0, 8.0, 11.0]).double()]
    ),
    "uniform": lambda: torch.linspace(-1, 1, 240, dtype=torch.float64),
    "a null space and a bulk": lambda: torch.cat(
        [torch.zeros(120), torch.linspace(0.5, 2, 120)]
    ).double(),
}


@pytest.mark.parametrize(("steps", "probes"), [(30, 1), (24, 4)])
@pytest.mark.parametrize("name", COVERED)
def test_coverage_of_the_bands(name: str, steps: int, probes: int) -> None:
    """Over 200 seeds the 95 % bands cover the truth at 90 to 99 % of the points."""
    values = COVERED[name]()
    A = Diagonal(values)
    density_hits, cumulative_hits, envelope_hits = [], [], []
    for seed in range(200):
        density = spectral_density(A, steps, probes, points=80, seed=seed)
        truth = smeared(values, density)
        lower, upper = density.band()
        there = truth > 1e-3 * truth.max()
        density_hits.append(((truth >= lower) & (truth <= upper))[there].double().mean())
        share = cumulative(values, density.grid)
        lower, upper = density.cumulative_band()
        inside = (share > 0.02) & (share < 0.98)
        cumulative_hits.append(((share >= lower) & (share <= upper))[inside].double().mean())
        lower, upper = density.cumulative_envelope()
        envelope_hits.append(((share >= lower) & (share <= upper))[inside].double().mean())
    assert 0.90 <= float(torch.stack(density_hits).mean()) <= 0.99
    assert 0.90 <= float(torch.stack(cumulative_hits).mean()) <= 0.99
    assert float(torch.stack(envelope_hits).mean()) >= 0.94


def test_the_quadrature_bound_holds_for_the_probes_own_mass() -> None:
    from deepspec.krylov._probes import unit_probe

    values = torch.linspace(-1, 1, 300, dtype=torch.float64)
    A = Diagonal(values)
    density = spectral_density(A, 25, 2, points=200, seed=3)
    own = sum(unit_probe(A, 3, i).square() for i in range(2)) / 2
    mass = ((values <= density.grid[:, None]) * own).sum(dim=1)
    lower, upper = density.quadrature.brackets(density.grid)
    assert (mass >= lower - 1e-12).all()
    assert (mass <= upper + 1e-12).all()
    assert ((mass - density.cumulative()).abs() <= density.quadrature_bound + 1e-12).all()


def test_float32_differs_by_less_than_the_band() -> None:
    values = eigenvalues("spike near the bulk")
    fine = spectral_density(rotated(values), 64, 2)
    coarse = spectral_density(rotated(values, torch.float32), 64, 2)
    lower, upper = fine.band()
    moved = torch.nn.functional.interpolate(
        coarse.values[None, None], size=len(fine.grid), mode="linear"
    )[0, 0]
    inside = (moved >= lower) & (moved <= upper)
    assert float(inside.double().mean()) > 0.99


def test_ghosts_are_flagged_and_only_ghosts() -> None:
    spectrum = torch.cat([torch.linspace(0, 1, 200), torch.tensor([5.0, 7.0])]).double()
    fast = spectral_density(Diagonal(spectrum), 120)
    seen = fast.ritz_values[0]
    for outlier in (5.0, 7.0):
        copies = (seen - outlier).abs() < 1e-9
        assert int(copies.sum()) > 1
        assert int((copies & ~fast.ghosts[0]).sum()) == 1
    assert not bool(spectral_density(Diagonal(spectrum), 12).ghosts.any())
    twice = spectral_density(rotated(eigenvalues("multiplicities")), 30)
    assert not bool(twice.ghosts.any())


@pytest.mark.parametrize("reverse", [False, True])
def test_what_was_deflated_does_not_come_back_as_zeros(reverse: bool) -> None:
    spectrum = torch.cat([torch.linspace(1, 2, 60), torch.tensor([9.0, 8.0, 7.0])]).double()
    A = rotated(-spectrum if reverse else spectrum)
    pairs = top_eigenpairs(A, 3, "magnitude")
    rest = spectral_density(A.deflate(pairs), 63, 4)
    assert rest.quadrature.dimension == 60
    heavy = rest.ritz_weights > 1e-20
    assert rest.ritz_values[heavy].abs().min() > 0.99
    assert rest.ritz_values.abs().max() < 2.01


def test_masses_of_a_joined_spectrum_add_up() -> None:
    values = eigenvalues("indefinite")
    whole = joined_spectrum(rotated(values), k=6, steps=54, probes=20)
    assert whole.pair_mass == pytest.approx(0.1)
    total = whole.pair_mass + float(whole.values.sum()) * whole.rest.spacing
    assert total == pytest.approx(1, abs=1e-12)
    points = (values[1:] + values[:-1]) / 2
    error = (whole.cumulative(points) - cumulative(values, points)).abs().max()
    assert error < 0.1
    assert float(whole.cumulative(values[-7:-6] + 1e-6)) == pytest.approx(0.9, abs=1e-9)
    lower, upper = whole.band()
    assert ((lower <= whole.values) & (whole.values <= upper)).all()
    assert (whole.standard_error >= 0).all()
    assert torch.equal(whole.grid, whole.rest.grid)


def test_a_joined_spectrum_is_of_one_seed_and_leaves_a_rest() -> None:
    A = Diagonal(torch.linspace(0, 1, 30, dtype=torch.float64))
    drawn = joined_spectrum(A, 2, 9, seed=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    again = joined_spectrum(A, 2, 9, seed=whole_seed(generator))
    assert torch.equal(drawn.pairs.vectors, again.pairs.vectors)
    assert torch.equal(drawn.values, again.values)
    A.matvecs = 0
    with pytest.raises(ValueError, match=r"k below 30.*got k=30"):
        joined_spectrum(A, 30, 9)
    assert A.matvecs == 0


def test_sides_of_a_log_density() -> None:
    values = torch.cat([-(10.0 ** torch.linspace(-3, 0, 30)), 10.0 ** torch.linspace(-2, 1, 90)])
    A = Diagonal(values.double())
    density = log_spectral_density(A, 200, 12, epsilon=1e-8, points=200)
    assert float(density.positive.sum()) * density.spacing == pytest.approx(0.75, abs=0.06)
    assert torch.allclose(density.positive + density.negative, density.values)
    middle = (density.grid > 0.02) & (density.grid < 0.9)
    # 90 values over 3 decades and 30 over 3 decades: 1/3 of the mass per factor of ten.
    assert float(density.values[middle].mean()) == pytest.approx(1 / (3 * 2.302585), rel=0.2)
    per_unit = density.redraw(per="unit")
    assert torch.allclose(per_unit.values * per_unit.widths, density.values * density.spacing)
    for side in ("both", "positive", "negative"):
        assert (density.standard_error_of(side) >= 0).all()
        assert (density.quadrature_error_of(side) >= 0).all()
    with pytest.raises(ValueError, match="side"):
        density.standard_error_of("upper")
    with pytest.raises(ValueError, match="side"):
        density.quadrature_error_of("upper")


def test_kernel_polynomials_against_dense() -> None:
    values = torch.linspace(-1, 3, 500, dtype=torch.float64)
    A = Diagonal(values)
    density = kernel_polynomial_density(A, 60, 8)
    assert A.matvecs == density.matvecs == 32 + 60 * 8
    assert (density.cumulative(values) - cumulative(values, values)).abs().max() < 0.05
    assert (density.values > -1e-9).all()
    assert torch.isnan(kernel_polynomial_density(A, 20, 1).standard_error).all()
    middle = (density.grid > 0) & (density.grid < 2)
    covered = (density.values - 0.25).abs() < 3 * density.standard_error + 0.02
    assert covered[middle].all()


def test_kernel_polynomials_notice_what_lies_outside() -> None:
    spectrum = torch.cat([torch.linspace(0, 1, 5000), torch.tensor([1.4])]).double()

    class Hidden(Diagonal):
        """An eigenvalue that the first 32 products do not show."""

        def _product(self, columns: torch.Tensor) -> torch.Tensor:
            image = super()._product(columns)
            if self.matvecs <= 32:
                image[-1] = 0.5 * columns[-1]
            return image

    with pytest.raises(ArithmeticError, match="outside"):
        kernel_polynomial_density(Hidden(spectrum), 300)


def test_saved_and_loaded(tmp_path) -> None:
    A = rotated(eigenvalues("indefinite"))
    density = spectral_density(A, 20, 2)
    density.save(tmp_path / "density")
    again = SpectralDensity.load(tmp_path / "density")
    assert torch.equal(again.values, density.values)
    assert torch.equal(again.standard_error, density.standard_error)
    log = log_spectral_density(A, 20)
    log.save(tmp_path / "log")
    assert torch.equal(LogSpectralDensity.load(tmp_path / "log").values, log.values)
    series = kernel_polynomial_density(A, 20)
    series.save(tmp_path / "series")
    assert torch.equal(KernelPolynomialDensity.load(tmp_path / "series").values, series.values)
    whole = joined_spectrum(A, 2, 20)
    whole.save(tmp_path / "whole")
    assert torch.equal(JoinedSpectrum.load(tmp_path / "whole").values, whole.values)
    for cls in (SpectralDensity, KernelPolynomialDensity, JoinedSpectrum):
        with pytest.raises(ValueError, match="found 'LogSpectralDensity'"):
            cls.load(tmp_path / "log")
    with pytest.raises(ValueError, match="found 'SpectralDensity'"):
        LogSpectralDensity.load(tmp_path / "density")


def test_bad_arguments() -> None:
    A = Diagonal(torch.linspace(0, 1, 9))
    for estimator in (spectral_density, log_spectral_density, kernel_polynomial_density):
        with pytest.raises(ValueError, match="steps of at least 1"):
            estimator(A, 0)
        with pytest.raises(ValueError, match="probes of at least 1, got 0"):
            estimator(A, 4, 0)
        with pytest.raises(ValueError, match="points of at least 2"):
            estimator(A, 4, points=1)
    assert A.matvecs == 0
    for kappa in (1.0, -2.0, float("nan")):
        with pytest.raises(ValueError, match="kappa above 1"):
            spectral_density(A, 4, kappa=kappa)
    with pytest.raises(ValueError, match="margin above 0"):
        spectral_density(A, 4, margin=0.0)
    with pytest.raises(ValueError, match="margin above 0"):
        kernel_polynomial_density(A, 4, margin=-1.0)
    for epsilon in (0.0, -1e-5):
        with pytest.raises(ValueError, match=r"epsilon.* above 0"):
            log_spectral_density(A, 4, epsilon=epsilon)
    with pytest.raises(ValueError, match='per="log"'):
        log_spectral_density(A, 4, per="decade")
    with pytest.raises(ValueError, match="level between 0 and 1"):
        spectral_density(A, 4).band(95)
    with pytest.raises(FloatingPointError, match="product 1 of Diagonal"):
        spectral_density(Diagonal(torch.tensor([1.0, torch.nan])), 4)
    with pytest.raises(ValueError, match="something left"):
        spectral_density(A.project_out(ColumnSpace(torch.eye(9))), 4)


def test_randomness_is_its_own() -> None:
    A = Diagonal(torch.linspace(0, 1, 40))
    before = torch.get_rng_state()
    default = spectral_density(A, 10)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(default.values, spectral_density(A, 10, seed=0).values)
    assert not torch.equal(default.values, spectral_density(A, 10, seed=1).values)
    one = spectral_density(A, 10, seed=torch.Generator().manual_seed(5))
    two = spectral_density(A, 10, seed=torch.Generator().manual_seed(5))
    assert torch.equal(one.values, two.values)


def test_the_band_of_a_log_density_covers_as_often_as_it_says() -> None:
    """Of the smeared truth, on each side: a thousand eigenvalues of both signs, one probe each."""
    values = torch.cat([10.0 ** torch.linspace(-2, 1, 700), -(10.0 ** torch.linspace(-1, 0, 300))])
    A = Diagonal(values.double())
    signs = {"both": values == values, "positive": values >= 0, "negative": values < 0}
    hits: dict[str, list[torch.Tensor]] = {side: [] for side in signs}
    for seed in range(12):
        density = log_spectral_density(A, 400, points=60, seed=seed)
        edges = density.log_grid[:-1] + density.spacing / 2
        logs = (values.double().abs() + density.epsilon).log()
        below = torch.special.ndtr((edges[:, None] - logs) / density.sigma)
        below = torch.cat([0 * below[:1], below, 0 * below[:1] + 1])
        for side, found in hits.items():
            truth = (below.diff(dim=0) * signs[side]).mean(dim=1) / density.spacing
            lower, upper = density.band(side=side)
            there = truth > 1e-2 * truth.max()
            found.append(((truth >= lower) & (truth <= upper))[there].double())
    for side, found in hits.items():
        assert float(torch.cat(found).mean()) >= 0.88, side


def test_a_log_density_knows_the_share_below_a_magnitude() -> None:
    values = torch.tensor([-4.0, -1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    density = log_spectral_density(Diagonal(values), 5, reorthogonalize="full")
    at = torch.tensor([0.4, 0.5, 1.0, 1.5, 4.0], dtype=torch.float64)
    assert density.cumulative(at + 1e-9).tolist() == pytest.approx([0, 0.2, 0.4, 0.4, 1.0])
    assert density.cumulative().shape == density.grid.shape
