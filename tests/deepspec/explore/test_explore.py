"""The page on saved attributions: what it finds, what a URL may say, what it draws."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import deepspec
from deepspec.cli import app
from deepspec.explore import explorer, runs, view
from deepspec.explore.runs import Runs
from deepspec.explore.view import View, parse_query
from tests.deepspec.explore.saved import save_two


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_two(tmp_path_factory.mktemp("runs"))


def test_runs_are_found_in_the_order_of_their_numbers(folder: Path) -> None:
    assert Runs.under(folder).names == ("epoch-9", "epoch-10")
    assert Runs.under(folder / "epoch-9").names == ("epoch-9",)


def test_what_is_no_attribution_is_left_out(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "all")
    shutil.copytree(folder / "epoch-9", tmp_path / "all" / ".epoch-11.unfinished")
    other = tmp_path / "all" / "density"
    other.mkdir()
    (other / "manifest.json").write_text(json.dumps({"kind": "density", "attribution": 1}))
    assert Runs.under(tmp_path / "all").names == ("epoch-9", "epoch-10")


def test_folders_with_nothing_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="it does not exist"):
        explorer(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="it holds none"):
        explorer(tmp_path)
    save_two(tmp_path)
    monkeypatch.setattr(runs, "MOST", 1)
    with pytest.raises(ValueError, match="it holds 2; name a folder within it"):
        Runs.under(tmp_path)


def test_without_panel_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepspec.explore.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"deepspec-ccm\[explore\]"):
        explorer(folder)
    result = CliRunner().invoke(app, ["explore", str(folder), "--no-browser"])
    assert (result.exit_code, "deepspec-ccm[explore]" in result.stderr) == (2, True)


def test_the_shell_says_what_it_cannot_show(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["explore", str(tmp_path), "--no-browser"])
    assert (result.exit_code, "it holds none" in result.stderr) == (2, True)
    shutil.copytree(folder / "epoch-9", tmp_path / "damaged")
    for arrays in (tmp_path / "damaged").glob("*.safetensors"):
        arrays.write_bytes(b"nonsense")
    result = CliRunner().invoke(app, ["explore", str(tmp_path), "--no-browser"])
    assert (result.exit_code, "error:" in result.stderr) == (2, True)


parts = st.lists(st.sampled_from(view.PARTS), unique=True).map(tuple)


@given(
    st.builds(View, run=st.integers(0, 6), split=st.sampled_from(["train", "test"]), without=parts)
)
def test_a_url_says_the_view(shown: View) -> None:
    assert parse_query(shown.query(), runs=7) == (shown, ())


@given(st.text(max_size=60))
def test_any_url_gives_a_view(text: str) -> None:
    shown, _ = parse_query("?" + text, runs=1)
    assert (shown.run, shown.split in ("train", "test")) == (0, True)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?run=3", "run: expected a number from 0 to 2"),
        ("?run=٣", "run: expected"),
        ("?split=all", "split: expected train or test"),
        ("?without=global_mean", "without: expected some of between_class"),
        ("?without=within_class,within_class", "without: expected some of"),
        ("?cause=x", "expected run, split or without"),
        ("?run=" + "0" * 3000, "longer than 2000"),
    ],
)
def test_bad_urls_get_a_message(query: str, said: str) -> None:
    shown, messages = parse_query(query, runs=3)
    assert shown == View()
    assert said in messages[0]


def test_the_picture_shows_the_saved_numbers(folder: Path) -> None:
    pytest.importorskip("bokeh", reason="the extra `explore` is not installed")
    from deepspec.explore.figures import SpectrumFigures

    split = deepspec.Attribution.load(folder / "epoch-9").train
    figures = SpectrumFigures()
    figures.show(split, ["cross_class"])
    np.testing.assert_array_equal(figures.top.data["value"], split.whole.top)
    total = sum(figures.top.data[part] for part in view.PARTS)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    left = split.left_without("cross_class").top
    np.testing.assert_array_equal(figures.sticks["cross_class"].data["value"], left)
    assert len(figures.sticks["between_class"].data["value"]) == 0


def test_the_page_follows_its_controls(folder: Path) -> None:
    pytest.importorskip("panel", reason="the extra `explore` is not installed")
    from deepspec.explore.page import Page

    page = Page(Runs.under(folder))
    first = page.facts.object
    page.run.value = 1
    assert "epoch-10" in page.head.object
    assert page.facts.object != first
    page.without.value = []
    assert page.query.value == "?run=1&split=train&without="
    page.move(split="test")
    assert "no test split" in page.alert.object
    assert page.shown.split == "train"
    assert torch.isfinite(page.runs.load(1).train.top).all()
