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
from deepspec import (
    attribution,
    class_structure,
    dynamics,
    krylov,
    layerwise,
    neural_tangent_kernel,
)
from deepspec.krylov import baselines
from deepspec.storage.display import Drawable, Result, Tabular, html_table, in_words
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import SNAPSHOTS, train
from tests.deepspec.attribution import planted

PACKAGES = (
    attribution,
    baselines,
    class_structure,
    dynamics,
    krylov,
    layerwise,
    neural_tangent_kernel,
)
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
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)).double()
    problem = deepspec.Problem(net, (torch.eye(2).double(), torch.tensor([0, 1])))
    blocks = krylov.block_spectra(deepspec.GaussNewton(problem))
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
        blocks,
    ]


def trained() -> list[Any]:
    eye = torch.eye(3, dtype=torch.float64)
    collapse = dynamics.neural_collapse(eye, torch.arange(3), 3 * eye - 1)
    recorder = deepspec.Recorder(nn.Linear(3, 3), (eye.float(), torch.arange(3)), what=["loss"])
    recorder.record(0)
    moments = {(n, 0): [moment(epoch, n) for epoch in (1, 10)] for n in (10, 100)}
    trends = dynamics.measure_trends(moments, {key: [0.5, 0.1, 0.0, 0.0] for key in moments})
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3)).double()
    problem = deepspec.Problem(net, (eye[:2, :2], torch.tensor([0, 1])))
    block = krylov.block_spectra(deepspec.GaussNewton(problem)).blocks[0]
    return [block, collapse, recorder.trajectory, moment(1, 10), trends, trends.peak[10]]


def layered() -> list[Any]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    inputs = torch.randn(18, 4, dtype=torch.float64)
    problem = deepspec.Problem(net, (inputs, torch.arange(18) % 3))
    layers = deepspec.Layers(problem)
    agreement = layerwise.curvature_agreement(layers)
    found = deepspec.attribute(problem, layers=True, draws=2)
    first, block = layers[0], agreement.layers[0]
    means = first.mean_products()
    return [
        *(found.layers["0"], means, first.weight.knock_out(5e-4)),
        *(found.layers["0"].structure, found.layers["0"].structure.features),
        *(agreement, block, block["kfac"]),
    ]


def moment(epoch: int, samples: int) -> dynamics.SnapshotSpectra:
    values = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    spectrum = attribution.Spectrum(
        operator="G", method="exact", top=values[:1], nodes=values[1:], counts=values, matvecs=0
    )
    numbers = {"loss": 0.5, "error_rate": 0.1, "test_error": math.nan, "trace": 6.0 / epoch}
    return dynamics.SnapshotSpectra(
        epoch=epoch,
        samples=samples,
        classes=3,
        parameters=50,
        exact=True,
        spectrum=spectrum,
        within=spectrum,
        class_values=values,
        cross_values=values,
        own_values=values,
        within_means=values,
        within_trace=6.0,
        within_rank=3,
        levels={},
        hessian=(),
        layout=None,
        means=None,
        **numbers,
    )


@pytest.fixture(scope="module")
def examples() -> list[Any]:
    return [*attributed(), *estimated(), *trained(), *layered()]


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
        wide = 160 if "__repr__" in vars(type(result)) else 102
        assert max(map(len, lines)) <= wide, result
        own = "__repr__" in vars(type(result))
        assert own or repr(result).startswith(f"{type(result).__name__}(")
        assert "tensor(" not in repr(result)


def test_other_public_objects_are_short_too(tmp_path: Path) -> None:
    net, split = mlp(64, (4,)), digits(3)
    training = train(net, *split.train, epochs=3, folder=tmp_path, snapshots=[3])
    problem = deepspec.Problem(net, split.train, num_classes=10)
    G, parts = deepspec.GaussNewton(problem), deepspec.ClassStructure(problem)
    means = class_structure.cell_means(parts)
    recorder = deepspec.Recorder(net, split.train)
    array = deepspec.gradients(problem)
    shown = [training, split, problem, parts, means, means.projector(), recorder, array, G]
    shown += [deepspec.Hessian(problem), G - 2 * parts.between_class, *array.parts.values()]
    shown += [dynamics.Snapshots(tmp_path / SNAPSHOTS, net), array.gram]
    for thing in shown:
        assert " at 0x" not in repr(thing)
        assert len(repr(thing)) <= 160, thing
        assert "\n" not in repr(thing)
    assert "30 samples, 10 classes" in repr(problem)
    assert repr(recorder) == "Recorder(loss, edge, outliers; every 100 steps, 0 rows so far)"
    assert repr(means).startswith("Means(100 cell means, vectors of ")
    assert repr(split) == "Split(30 to train on, 1,767 held out, 10 classes, inputs 64)"


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


def test_a_knockout_of_which_less_is_known_one_way_has_a_table_too() -> None:
    one = torch.arange(3.0).flip(0)
    table = attribution.Knockout(part="x", rank=1, subtracted=one, projected=one[:1])._table()
    assert table["subtracted"] == [2.0, 1.0, 0.0]
    assert table["projected"][0] == 2.0
    assert all(math.isnan(value) for value in table["projected"][1:])


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
