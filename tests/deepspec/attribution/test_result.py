"""Results on disk, the report, and inputs that cannot be right."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import deepspec
from deepspec.attribution import Attribution, attribute
from deepspec.attribution.spectra import exact_spectrum_of
from deepspec.report.html import write_report
from deepspec.report.plots import figures
from deepspec.report.plots.maps import distances
from deepspec.storage.results import new_folder, pack, unpack
from tests.deepspec.attribution import planted


def small(seed: int = 0) -> deepspec.Problem:
    directions, labels = planted.class_means([12] * 3, 6.0, seed=seed, size=30)
    return planted.problem(directions, labels)


@pytest.fixture(scope="module")
def found() -> Attribution:
    return attribute(small(), test=small(1), untrained=small(2), draws=3, exact_up_to=0, steps=12)


def test_saving_and_loading_changes_nothing(found: Attribution, tmp_path: Path) -> None:
    found.save(tmp_path / "run")
    again = Attribution.load(tmp_path / "run")
    assert again.summary() == found.summary()
    assert again.tables() == found.tables()
    for name, split in found.splits.items():
        for one, other in zip(split.spectra, again.splits[name].spectra, strict=True):
            torch.testing.assert_close(one.nodes, other.nodes, rtol=0, atol=0)
            assert one.operator == other.operator
        for part in ("between_class", "within_class"):
            mine, theirs = split.knockout(part), again.splits[name].knockout(part)
            torch.testing.assert_close(mine.subtracted, theirs.subtracted, rtol=0, atol=0)
    assert again.settings == found.settings
    assert again.test.finding("outliers").answer == found.test.finding("outliers").answer


def test_the_same_seed_gives_the_same_numbers() -> None:
    problem = small()
    one, other = attribute(problem, draws=3), attribute(problem, draws=3)
    assert one.summary() == other.summary()
    torch.testing.assert_close(one.train.top, other.train.top, rtol=1e-9, atol=0)


def test_an_existing_folder_is_kept(found: Attribution, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "precious").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        found.save(folder)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_report(found, folder)
    with pytest.raises(FileExistsError, match="something else"):
        found.save(folder, overwrite=True)
    (folder / "manifest.json").write_text("{}")
    for place in (folder, tmp_path / "not" / "there"):
        with pytest.raises(ZeroDivisionError), new_folder(place, overwrite=True):
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (folder / "precious").read_text() == "mine"
    found.save(folder, overwrite=True)
    assert not (folder / "precious").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "place", [("sha256",), ("result",), ("result", "splits", "train", "trace"), ("new",)]
)
def test_another_versions_manifest_is_refused(
    found: Attribution, tmp_path: Path, place: tuple[str, ...]
) -> None:
    found.save(tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = manifest
    for name in place[:-1]:
        entry = entry[name]
    if place == ("new",):
        manifest["result"]["new"] = 1
    else:
        del entry[place[-1]]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="written by another version or is damaged"):
        Attribution.load(tmp_path / "run")


def test_other_folders_are_refused(tmp_path: Path) -> None:
    pairs = deepspec.MatrixOperator(torch.eye(3))
    deepspec.krylov.top_eigenpairs(pairs, 1).save(tmp_path / "pairs")
    with pytest.raises(ValueError, match="expected a saved Attribution"):
        Attribution.load(tmp_path / "pairs")


def test_the_report_stands_by_itself(found: Attribution, tmp_path: Path) -> None:
    page = write_report(found, tmp_path / "run", title="A <net>", extra={"command": ["demo"]})
    text = page.read_text(encoding="utf-8")
    assert "A &lt;net&gt;" in text
    assert "http" not in text
    assert 'src="data:image/png;base64,' in text
    assert text.index("On the train data") < text.index("<figure>") < text.index("Settings")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"report.html", "manifest.json", "train-log-spectrum.png", "test-scree.png"} <= names
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["command"] == ["demo"]
    assert manifest["result"]["versions"]["torch"] == torch.__version__


def test_every_axis_says_what_it_shows(found: Attribution) -> None:
    drawn = figures(found)
    assert set(drawn) == {
        f"{split}-{what}"
        for split in ("train", "test")
        for what in ("verdicts", "log-spectrum", "parts", "hessian", "scree")
    }
    for name, figure in drawn.items():
        labels = [axes.get_xlabel() for axes in figure.axes] + [
            axes.get_ylabel() for axes in figure.axes
        ]
        assert any(labels), name


def test_one_sample_is_drawn_and_told() -> None:
    """All its eigenvalues are top ones: there is no other for a part to have a share in."""
    directions, labels = planted.class_means([1, 0, 0], 6.0, size=30)
    alone = attribute(planted.problem(directions, labels), draws=2, exact_up_to=0)
    assert set(alone.train.spectrum("G").causes) == set(alone.train.spectrum("G").top_causes)
    assert "train-log-spectrum" in figures(alone)
    assert "nothing scatters within classes" in alone.summary()
    assert "come from the class means" in alone.summary()
    for words in ("nan", "Averages", "clear of the bulk"):
        assert words not in alone.summary()


def test_an_absent_feature_and_a_single_outlier_are_told_as_such(found: Attribution) -> None:
    finding = replace(found.train.finding("bulk"), present=False, answer="not decided")
    one = replace(
        found.train,
        top=torch.tensor([9.0, 1.0]),
        edge=1.0,
        findings=(finding, *found.train.findings[1:2]),
    )
    two_classes = replace(found, splits={"train": one}, num_classes=2).summary()
    assert "1 eigenvalue of G stands clear of the bulk (C = 2); it " in two_classes
    assert "scatter within classes (no such feature)" in two_classes
    assert "predict the top eigenvalue to within" in two_classes


def test_distances_are_those_of_the_vectors(found: Attribution) -> None:
    means = found.train.means
    assert means is not None
    names, table = distances(means)
    assert (0, -1) in names
    roots = torch.linalg.eigh(means.gram)
    vectors = roots.eigenvectors * roots.eigenvalues.clamp_min(0).sqrt()
    first = means.cells.index([0, 1])
    second = means.cells.index([2, 1])
    expected = float((vectors[first] - vectors[second]).norm())
    assert table[names.index((0, 1)), names.index((2, 1))] == pytest.approx(expected, rel=1e-6)


def test_inputs_that_cannot_be_right() -> None:
    problem = small()
    directions, labels = planted.class_means([12] * 3, 6.0, size=31)
    with pytest.raises(ValueError, match="same net"):
        attribute(problem, test=planted.problem(directions, labels))
    with pytest.raises(ValueError, match="at least 2 draws"):
        attribute(problem, draws=1)
    with pytest.raises(ValueError, match="at least 1 step"):
        attribute(problem, steps=0)
    nothing = planted.problem(0 * directions, labels)
    with pytest.raises(ValueError, match="G is zero"):
        attribute(nothing, draws=2)
    with pytest.raises(KeyError, match="test split"):
        _ = attribute(problem, draws=2).test


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(TypeError, match="got object"):
        pack({"x": object()}, "root", {})
    assert unpack(tuple[int, str], [1, "a"], {}) == (1, "a")
    assert unpack(list[float], ["inf"], {}) == [float("inf")]


def test_marks_from_a_list_of_all_eigenvalues() -> None:
    spectrum = exact_spectrum_of("A", torch.tensor([1.0, 2.0, 3.0]), 1)
    assert (spectrum.tail_trace, spectrum.tail_energy) == (3.0, 5.0)


def test_the_report_of_an_array_of_vectors(tmp_path: Path) -> None:
    labels = torch.arange(24) % 3
    vectors = torch.randn(24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = attribute(deepspec.ClassArray(vectors, labels), draws=2)
    write_report(found, tmp_path / "report")
    drawn = figures(found)["train-log-spectrum"]
    assert drawn.axes[0].get_title(loc="left") == "V, each eigenvalue shared out among its causes"
    assert drawn.axes[1].get_title(loc="left") == r"V − $V_{\mathrm{class}}$: class means removed"
