"""What a report says of layers: the numbers by definition, the sentence, the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepspec import Layers, Problem
from deepspec.layerwise import LayerStructure, layer_structure, layers_in_words
from deepspec.layerwise.structure import table_of_layers
from deepspec.report.layers_html import LayersFound, write_layers
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp


@pytest.fixture(scope="module")
def problem() -> Problem:
    return Problem(mlp(64, (12,), seed=0).eval(), digits(3, seed=0).train, dtype=torch.float64)


@pytest.fixture(scope="module")
def found(problem: Problem) -> list[LayerStructure]:
    return [layer_structure(layer, 5e-4) for layer in Layers(problem)]


def test_spectra_are_those_of_dense_matrices(problem: Problem, found: list[LayerStructure]) -> None:
    array = Layers(problem)[0].features
    parts = array.parts["between_class"].to_dense()
    top = torch.linalg.eigvalsh(parts).flip(0)[:10]
    assert torch.allclose(found[0].features.of_class, top, atol=1e-10)
    whole = torch.linalg.eigvalsh(array.second_moment.to_dense()).flip(0)
    before = found[0].features.before
    assert torch.allclose(before, whole[: len(before)], atol=1e-10)


def with_measures(one: LayerStructure, gap: float, left: float, ratio: float) -> LayerStructure:
    changed = {"H gap": gap, "H gap left": left, "Δ whitening": ratio}
    return replace(one, measures={**one.measures, **changed})


def test_the_sentence_follows_the_numbers(found: list[LayerStructure]) -> None:
    first, last = found[0], found[-1]
    rising = [with_measures(first, 1.1, 1.0, 9.0), with_measures(last, 3.0, 1.1, 2.0)]
    said = layers_in_words(rising)
    assert said.startswith("Class means leave the bulk at layer 2 of 2")
    assert "lose their orthogonality below layer 2 of 2" in said
    assert "CFAC predicts the outliers of G^l" in said
    # A gap that stays when the class means are gone is not theirs.
    other = [with_measures(one, 3.0, 3.0, 9.0) for one in (first, last)]
    assert "at no layer" in layers_in_words(other)
    assert "not orthogonal at any of the last layers" in layers_in_words(other)
    # No ratio at the logits, where the means are C − 1: the layer below decides.
    unknown = with_measures(last, 3.0, 1.1, float("nan"))
    assert "stay nearly orthogonal" in layers_in_words([rising[1], unknown])
    assert "not orthogonal" in layers_in_words([rising[0], unknown])
    assert "too few" in layers_in_words([unknown])
    large = [replace(one, curvature=None, without_curvature="n·C = 9,000") for one in rising]
    assert "not compared with G^l: n·C = 9,000" in layers_in_words(large)


def test_the_page_has_table_and_figures(found: list[LayerStructure], tmp_path: Path) -> None:
    page = write_layers(found, tmp_path / "out", overwrite=False)
    text = page.read_text()
    assert layers_in_words(found).split(";")[0] in text
    assert all(name in text for name in table_of_layers(found)[0][:3])
    for name in ("features-knockout", "errors-scree", "weights-knockout", "curvature"):
        assert (page.parent / f"layers-{name}.png").stat().st_size > 1000
    loaded = LayersFound.load(page.parent)
    assert layers_in_words(loaded.layers) == layers_in_words(found)
    with pytest.raises(FileExistsError, match="expected a new folder"):
        write_layers(found, tmp_path / "out", overwrite=False)
