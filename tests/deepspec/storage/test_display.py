"""Every public result: frozen, saved and read back, in words, as a table, drawn."""

import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deepspec
from deepspec import attribution, class_structure, dynamics, krylov, neural_tangent_kernel
from deepspec.krylov import baselines
from deepspec.storage.display import Drawable, Result, Tabular, html_table, in_words
from tests.deepspec.attribution import planted

PACKAGES = (attribution, baselines, class_structure, dynamics, krylov, neural_tangent_kernel)
# Not what an estimator found: means are bound to their net, a claim is what is tested.
OTHERS = {class_structure.Means, attribution.Claim}


def attributed() -> list[Any]:
    directions, labels = planted.class_means([12] * 3, 6.0, size=12)
    problem = planted.problem(directions, labels)
    found = deepspec.attribute(problem, draws=2)
    split = found.train
    return [
        found,
        split,
        split.decompositions[0],
        split.decompositions[0].parts[0],
        split.knockouts[0],
        split.spectra[0],
        split.hessian_spectra[0],
        split.findings[0],
        split.predicted,
        split.alignment,
        split.mini_bulk,
        split.layout,
        split.means,
        deepspec.exact_spectrum(deepspec.GaussNewton(problem)),
        deepspec.tangent_kernel(problem),
    ]


def estimated() -> list[Any]:
    values = torch.linspace(-1, 2, 60, dtype=torch.float64) ** 3
    A = deepspec.MatrixOperator(torch.diag(values))
    log = krylov.log_spectral_density(A, 40, points=200)
    pairs = krylov.top_eigenpairs(A, 12)
    return [
        pairs,
        krylov.spectral_density(A, 20, 2, points=100),
        log,
        krylov.joined_spectrum(A, 2, 20, points=100),
        baselines.kernel_polynomial_density(A, 20, 2, points=100),
        krylov.trace(A, 8),
        krylov.count_outliers(pairs),
        krylov.fit_power_law(log, (0.01, 5.0)),
        krylov.extreme_eigenvalues(A),
        krylov.lanczos(A, 9, torch.ones(60, dtype=torch.float64), "full"),
        log.quadrature,
    ]


def trained() -> list[Any]:
    eye = torch.eye(3, dtype=torch.float64)
    collapse = dynamics.neural_collapse(eye, torch.arange(3), 3 * eye - 1)
    recorder = deepspec.Recorder(nn.Linear(3, 3), (eye.float(), torch.arange(3)), what=["loss"])
    recorder.record(0)
    return [collapse, recorder.trajectory]


@pytest.fixture(scope="module")
def examples() -> list[Any]:
    return [*attributed(), *estimated(), *trained()]


def of_kind(examples: list[Any], kind: type) -> Iterator[Any]:
    found = [result for result in examples if isinstance(result, kind)]
    assert found
    yield from found


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, NaN equal to NaN."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9))
    if dataclasses.is_dataclass(a):
        pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
        return type(a) is type(b) and all(same(x, y) for x, y in pairs)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b or (math.isnan(a) and math.isnan(b))


def test_every_public_result_is_looked_at_here(examples: list[Any]) -> None:
    public = {
        getattr(package, name)
        for package in PACKAGES
        for name in package.__all__
        if dataclasses.is_dataclass(getattr(package, name))
    }
    public = {kind for kind in public if isinstance(kind, type)} - OTHERS
    assert public <= {type(result) for result in examples}
    assert all(issubclass(kind, Result) for kind in public)
    assert {type(result) for result in examples} <= public


def test_results_are_frozen_and_named(examples: list[Any]) -> None:
    for result in examples:
        kind = type(result)
        assert kind.__dataclass_params__.frozen, kind
        assert not kind.__dataclass_params__.repr, kind
        assert all(field.kw_only for field in dataclasses.fields(kind)), kind
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(kind)[0].name, 0)


def test_results_are_read_back_to_the_bit(examples: list[Any], tmp_path: Path) -> None:
    for place, result in enumerate(examples):
        assert "save" not in vars(type(result)) or isinstance(result, deepspec.Attribution)
        result.save(tmp_path / str(place))
        assert same(type(result).load(tmp_path / str(place)), result), type(result)


def test_a_repr_is_at_most_ten_lines_of_words(examples: list[Any]) -> None:
    for result in examples:
        lines = repr(result).splitlines()
        assert 1 <= len(lines) <= 10, result
        assert max(map(len, lines)) <= 102, result
        assert repr(result).startswith(f"{type(result).__name__}(")
        assert "tensor(" not in repr(result)


def test_what_a_notebook_shows_is_html(examples: list[Any]) -> None:
    for result in examples:
        shown = result._repr_html_()
        assert shown.startswith(("<pre>", "<p>"))
        assert shown.count("<tr>") <= 20
        assert "tensor(" not in shown
        assert ("<table>" in shown) == isinstance(result, Tabular)
    assert "&lt;script&gt;" in html_table({"<script>": ["<script>"]})


def test_plots_return_the_axes_they_drew_on(examples: list[Any]) -> None:
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    for result in of_kind(examples, Drawable):
        axes = Figure().subplots()
        assert result.plot(axes) is axes
        assert axes.has_data(), result
        assert axes.get_xlabel(), result
        before = pyplot.get_fignums()
        own = result.plot()
        assert own.has_data()
        assert len(pyplot.get_fignums()) == len(before) + 1
        pyplot.close(own.figure)


def test_bands_are_drawn(examples: list[Any]) -> None:
    from matplotlib.figure import Figure

    density = next(of_kind(examples, krylov.SpectralDensity))
    axes = density.plot(Figure().subplots())
    (band,) = axes.collections
    lower, upper = density.band()
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(float(lower.min()))
    assert heights.max() == pytest.approx(float(upper.max()))


def test_what_cannot_be_drawn_says_so() -> None:
    from deepspec.report.plots.results import draw

    with pytest.raises(TypeError, match="a result that can be drawn, got int"):
        draw(3)


def test_tables_have_columns_of_one_length(examples: list[Any]) -> None:
    for result in of_kind(examples, Tabular):
        lengths = {len(column) for column in result._table().values()}
        assert len(lengths) == 1, result


def test_frames_hold_the_numbers(examples: list[Any]) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas (the extra `frames`) is not installed")
    for result in of_kind(examples, Tabular):
        frame = result.to_frame()
        assert isinstance(frame, pandas.DataFrame)
        assert list(frame.columns) == list(result._table())
        assert len(frame) == len(next(iter(result._table().values())))
    pairs = next(of_kind(examples, krylov.Eigenpairs))
    assert pairs.to_frame()["eigenvalue"].tolist() == pairs.values.tolist()


def test_without_pandas_the_remedy_is_named(examples: list[Any], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    pairs = next(of_kind(examples, krylov.Eigenpairs))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'deepspec-ccm\[frames\]'"):
        pairs.to_frame()


def test_costs_are_whole_numbers_of_matvecs(examples: list[Any]) -> None:
    free = (krylov.Outliers, krylov.PowerLaw)
    for result in estimated():
        assert isinstance(result, free) or result.matvecs > 0, result
    for result in examples:
        assert type(getattr(result, "matvecs", 0)) is int, result


def test_the_same_attribute_has_the_same_shape(examples: list[Any]) -> None:
    at = torch.tensor([-0.5, 0.1, 1.0], dtype=torch.float64)
    densities = [r for r in examples if hasattr(r, "standard_error") and hasattr(r, "grid")]
    assert len(densities) == 4
    for density in densities:
        shape = density.grid.shape
        assert density.values.shape == density.standard_error.shape == shape
        lower, upper = density.band(0.9)
        assert lower.shape == upper.shape == density.cumulative().shape == shape
        assert bool((lower <= density.values).all() & (density.values <= upper).all())
        assert density.cumulative(at).shape == at.shape


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(0), "no numbers"),
        (torch.tensor(3), "3"),
        (torch.full((2, 2), torch.nan), "2 × 2 numbers, none of them finite"),
        (None, "none"),
        (True, "yes"),
        ("", "–"),
        ({}, "none"),
        ([{}] * 5, "5 dict"),
        (dict.fromkeys("abcdefgh", 0), "a, b, c, d, e, f, … (8)"),
        (object(), "object"),
    ],
)
def test_values_in_words(value: Any, words: str) -> None:
    assert in_words(value) == words


def test_long_results_are_cut() -> None:
    kind = dataclasses.make_dataclass(
        "Long", [(f"field_{i}", str) for i in range(30)], bases=(Result,), repr=False
    )
    lines = repr(kind(*["word"] * 30)).splitlines()
    assert len(lines) == 10
    assert lines[-2] == "  … and 23 more"


def test_nothing_that_draws_or_tabulates_is_imported_before_it_is_needed() -> None:
    code = "import sys, deepspec; print({'matplotlib', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
