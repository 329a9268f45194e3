"""Every result is saved and loaded in one way, and a folder is replaced in one step."""

import json
import math
import os
import shutil
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.storage import replacing
from deepspec.storage.checkpoint import load_state, save_state
from deepspec.storage.packing import pack, unpack
from deepspec.storage.results import Saved, load_result, new_folder, save_result


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "p k"]
    labels: Int[Tensor, " k"] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Whole(Saved):
    parts: dict[str, Part]
    by_rank: dict[int, float]
    pair: tuple[int, str]
    rows: list[list[int]]
    which: Literal["largest", "smallest"]
    exact: bool
    notes: dict[str, Any]
    matvecs: int = 0
    cache: list[int] = field(default_factory=list, init=False)


@dataclass(frozen=True)
class Other(Saved):
    matvecs: int


def whole() -> Whole:
    part = Part(
        values=torch.tensor([1.0, math.nan], dtype=torch.float64),
        vectors=torch.arange(6.0).reshape(3, 2),
        labels=torch.tensor([0, 1]),
    )
    return Whole(
        parts={"G − G_class": part, "last": replace(part, labels=None)},
        by_rank={1: 0.1, -2: math.inf},
        pair=(3, "[red]"),
        rows=[[1, 2], []],
        which="smallest",
        exact=True,
        notes={"array:x": "array:y", "nan": math.nan, "deep": [{"tensor": torch.ones(2)}, None]},
        matvecs=7,
    )


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    saved = whole()
    saved.save(tmp_path / "run")
    found = Whole.load(tmp_path / "run")
    for name, part in saved.parts.items():
        for one, other in zip(vars(part).values(), vars(found.parts[name]).values(), strict=True):
            assert (one is other is None) or torch.equal(one.nan_to_num(9), other.nan_to_num(9))
            assert one is None or one.dtype == other.dtype
    for name in ("by_rank", "pair", "rows", "which", "exact", "matvecs"):
        assert getattr(found, name) == getattr(saved, name)
    assert found.notes["array:x"] == "array:y"
    assert math.isnan(found.notes["nan"])
    assert torch.equal(found.notes["deep"][0]["tensor"], torch.ones(2))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["kind"] == "Whole"
    assert manifest["library"].startswith("deepspec ")
    replace(saved, matvecs=8).save(tmp_path / "run")  # an earlier one of its kind is replaced
    assert Whole.load(tmp_path / "run").matvecs == 8
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_entries_beside_the_result(tmp_path: Path) -> None:
    save_result(tmp_path, Other(3), {"command": "demo"})
    assert load_result(Other, tmp_path) == (Other(3), {"command": "demo"})
    with pytest.raises(ValueError, match="expected other entries than sha256"):
        save_result(tmp_path, Other(3), {"sha256": "x"})


def test_another_kind_is_neither_replaced_nor_read(tmp_path: Path) -> None:
    Other(1).save(tmp_path)
    with pytest.raises(FileExistsError, match=r"an earlier Whole, but .* holds 'Other'"):
        whole().save(tmp_path)
    with pytest.raises(ValueError, match=r"expected a saved Whole in .*, found 'Other'"):
        Whole.load(tmp_path)
    (tmp_path / "manifest.json").write_text("mine")
    with pytest.raises(FileExistsError, match="something else"):
        Other(1).save(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == "mine"


def test_another_versions_manifest_is_refused_in_words(tmp_path: Path) -> None:
    old = {"kind": "Other", "result": {"matvecs": 1}, "arrays": "a", "sha256": "b"}
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"by another version or is damaged \(format None, 2"):
        Other.load(tmp_path)


def changed(tree: Any, *path: Any, to: Any = None, drop: bool = False) -> Any:
    inner = tree
    for name in path[:-1]:
        inner = inner[name]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return tree


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (["matvecs"], "7", "expected int at the result.matvecs, got '7'"),
        (["matvecs"], True, "expected int"),
        (["exact"], 1, "expected bool"),
        (["which"], "middle", "expected one of .*largest"),
        (["by_rank", "1"], "0.1", "expected a number at the result.by_rank.1"),
        (["by_rank", "1"], 10**400, "expected a number"),
        (["by_rank", "one"], 1.0, "expected a number at the result.by_rank, got 'one'"),
        (["by_rank"], [], "expected entries by name"),
        (["pair"], [3], "expected 2 entries"),
        (["rows"], {"0": []}, "expected a list"),
        (["rows", 0, 0], None, "expected int"),
        (["parts", "last"], 3, "expected the fields of Part"),
        (["parts", "last", "values"], 1.0, "expected an array at"),
        (["parts", "last", "values"], {"$array": "nothing"}, "expected an array of this file"),
        (["parts", "last", "values"], {"$array": ["x"]}, "expected an array of this file"),
        (["parts", "last", "values"], {"$array": "x.parts.last.vectors"}, r"Float\[Tensor, 'k'\]"),
        (["parts", "last", "labels"], {"$array": "x.parts.last.values"}, r"Int\[Tensor, 'k'\]"),
        (["new"], 1, "with unknown new"),
        (["pair"], None, "expected a list"),
        (["notes", "x"], {"$float": "one"}, "expected a number at the result.notes.x"),
    ],
)
def test_what_does_not_fit_its_type_is_one_clear_error(path: list, to: Any, words: str) -> None:
    arrays: dict[str, Tensor] = {}
    tree = pack(whole(), "x", arrays)
    unpack(Whole, tree, arrays)
    with pytest.raises(ValueError, match=words):
        unpack(Whole, changed(tree, *path, to=to), arrays)


def test_missing_fields_and_checks_of_the_class_itself() -> None:
    @dataclass(frozen=True)
    class Positive:
        x: int

        def __post_init__(self) -> None:
            if self.x < 0:
                raise TypeError("expected x above 0")

    with pytest.raises(ValueError, match=r"the fields of Other .* without matvecs"):
        unpack(Other, {}, {})
    hidden = unpack.__globals__
    hidden["Positive"] = Positive
    try:
        with pytest.raises(ValueError, match="expected x above 0"):
            unpack(Positive, {"x": -1}, {})
    finally:
        del hidden["Positive"]
    with pytest.raises(TypeError, match="no results of type"):
        unpack(set, [], {})


@pytest.mark.parametrize("value", [{1, 2}, {"x": {"$array": 1}}, {(1, 2): 3}])
def test_what_cannot_be_kept_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="expected"):
        pack(value, "x", {})


def old_folder(folder: Path) -> None:
    save_state(folder, {"kind": "old"}, {})


def fill(place: Path) -> None:
    save_state(place, {"kind": "new"}, {})


def kind(folder: Path) -> str:
    return load_state(folder)[0]["kind"]


@pytest.mark.parametrize("can", [True, False])
def test_a_folder_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool) -> None:
    if not can:
        monkeypatch.setattr(replacing, "exchange", lambda one, other: False)
    old_folder(tmp_path / "run")
    (tmp_path / "link").symlink_to("run")
    for name in ("run", "link"):  # what a link points to is replaced, not the link
        with new_folder(tmp_path / name, overwrite=True) as place:
            fill(place)
        assert kind(tmp_path / "run") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "run"]
    assert (tmp_path / "link").is_symlink()


def test_the_exchange_is_one_step_where_the_system_has_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("b")
    if replacing.exchange(tmp_path / "a", tmp_path / "b"):
        assert (tmp_path / "a").read_text() == "b"
    assert not replacing.exchange(tmp_path / "a", tmp_path / "nothing")


def killed_before(step: int, work: Any) -> bool:
    """Whether a process died, which is killed before that step of the file system."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        count = iter(range(1000))

        def until(function: Any) -> Any:
            def done(*arguments: Any, **named: Any) -> Any:
                if next(count) == step:
                    os._exit(9)
                return function(*arguments, **named)

            return done

        replacing.exchange = until(replacing.exchange)
        os.replace, shutil.rmtree = until(os.replace), until(shutil.rmtree)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("can", [True, False])
def test_killed_at_any_step_neither_folder_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    if not can:
        monkeypatch.setattr(replacing, "exchange", lambda one, other: False)
    run = tmp_path / "run"
    kinds, put_back, step = [], 0, 0

    def work() -> None:
        with new_folder(run, overwrite=True) as place:
            fill(place)

    while True:
        shutil.rmtree(run, ignore_errors=True)
        old_folder(run)
        died = killed_before(step, work)
        step += 1
        if not run.exists():
            put_back += 1
            with pytest.warns(UserWarning, match="old folder is back there"):
                new_folder(run, overwrite=True).__enter__()
        kinds.append(kind(run))
        if not died:
            break
    assert kinds[0] == "old"
    assert kinds[-1] == "new"
    assert put_back == (0 if can else 1)


def test_what_is_interrupted_while_it_is_replaced_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM between the two names, where the file system has no exchange."""
    old_folder(tmp_path / "run")
    real = os.replace

    def stopped(source: Path, target: Path) -> None:
        if Path(source).name.startswith(".run.") and not str(source).endswith("being-replaced"):
            raise SystemExit(143)
        real(source, target)

    monkeypatch.setattr(replacing, "exchange", lambda one, other: False)
    context = new_folder(tmp_path / "run", overwrite=True)
    fill(context.__enter__())
    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(SystemExit):
        context.__exit__(None, None, None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert kind(tmp_path / "run") == "old"


def test_paths_that_cannot_name_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError):
        new_folder(tmp_path / "a", overwrite=True).__enter__()
    with pytest.raises(OSError, match="expected a folder's name, got /"):
        new_folder(Path("/"), overwrite=True).__enter__()
