"""Five hundred altered manifests, checkpoints, journals and weights: no harm, and no silence."""

import copy
import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from ccm.resume import Journal, ResumeError
from deepspec.attribution import Attribution, attribute
from deepspec.cli.commands import app
from deepspec.cli.loading import load_weights
from deepspec.report import html
from deepspec.storage import checkpoint
from deepspec.storage.checkpoint import Checkpoint, load_state
from tests.deepspec.attribution import planted

WILD: list[Any] = [
    None, True, -1, 0, 10**400, 1e308, "", "x", "../../../x", "/etc/passwd", "..", ".hidden", "a/b",
    "\0", "\u202e", "[red]", "<script>alert(1)</script>", "nan", {"$float": "nan"},
    {"$array": "x"}, {"$array": "../x"}, [], {}, [[[[]]]], "a" * 10_000, {"../../x": 1},
]  # fmt: skip
NAMES = ["../../../x", "/tmp/x", "..", "", "a/b", "<b>", "x" * 300, "train\n", "CON", "$array"]
CONTENT = [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"a":' * 2000, b'{"a":1,"a":2}', b"NaN"]

opened: list[tuple[str, bool]] = []
watching: list[bool] = []


def watch(event: str, arguments: tuple) -> None:
    """What is opened while somebody looks."""
    if watching and event == "open" and isinstance(arguments[0], str | bytes):
        flags = arguments[2] or 0
        write = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        opened.append((os.path.realpath(os.fsdecode(arguments[0])), write))
    elif watching and event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
        raise AssertionError(f"{event} {arguments}")


sys.addaudithook(watch)


@contextmanager
def nothing_outside(root: Path) -> Iterator[None]:
    """Nothing is written outside of this folder, nor read there but code and the system's."""
    opened.clear()
    watching.append(True)
    try:
        yield
    finally:
        watching.clear()
    inside = os.path.realpath(root) + os.sep
    ours = os.path.realpath(Path(html.__file__).parents[2]) + os.sep
    known = (inside, ours, "/proc/meminfo", *(os.path.realpath(path) for path in sys.path if path))
    for path, write in opened:
        harmless = path == os.devnull or path + os.sep == inside
        assert harmless or path.startswith((inside,) if write else known), (path, write)


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Where everything in a tree of JSON is."""
    found = [path] if path else []
    if isinstance(tree, dict | list):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            found += places(value, (*path, name))
    return found


def altered_tree(rng: random.Random, tree: dict) -> dict:
    """One entry that is another, missing, or under another name."""
    tree = copy.deepcopy(tree)
    *path, last = rng.choice(places(tree))
    inner: Any = tree
    for name in path:
        inner = inner[name]
    way = rng.random()
    if way < 0.2:
        del inner[last]
    elif way < 0.4 and isinstance(inner, dict):
        inner[rng.choice(NAMES)] = inner.pop(last)
    elif way < 0.6 and type(inner[last]) in (int, float):
        inner[last] += rng.choice([1, -1, 1e-9])
    else:
        inner[last] = rng.choice(WILD)
    return tree


def altered_bytes(rng: random.Random, content: bytes) -> bytes:
    """Some bytes that are others, a part that is missing or twice there, or something else."""
    way = rng.random()
    place = rng.randrange(len(content))
    if way < 0.5:
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 5])):
            changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if way < 0.7:
        return content[:place]
    if way < 0.85:
        return content[:place] + content[max(0, place - 9) :]
    return rng.choice(CONTENT)


def replaced(rng: random.Random, path: Path) -> None:
    """Something that is no regular file."""
    path.unlink()
    ways: list[Callable[[], Any]] = [
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/etc/passwd"),
        lambda: path.symlink_to(path),
        lambda: os.mkfifo(path),
        path.mkdir,
        lambda: (path.touch(), os.truncate(path, 2**40)),
    ]
    rng.choice(ways)()


def alter_state(rng: random.Random, folder: Path, *, sign: bool) -> bool:
    """Alter one saved state; whether its sums were made right again."""
    path = folder / "manifest.json"
    file = rng.choice([path, path, *folder.glob("arrays-*")])
    way = rng.random()
    if way < 0.15:
        replaced(rng, file)
    elif way < 0.4 or file != path:
        file.write_bytes(altered_bytes(rng, file.read_bytes()))
    else:
        manifest = altered_tree(rng, json.loads(path.read_text()))
        if sign:
            manifest.pop("manifest_sha256", None)
            manifest["manifest_sha256"] = checkpoint._digest(manifest)
        path.write_text(json.dumps(manifest))
        return sign
    return False


@pytest.fixture(scope="module")
def attribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attribution") / "run"
    attribute(planted.problem(*planted.class_means([4] * 3, 6.0, size=12)), draws=2).save(folder)
    return folder


def test_attributions(attribution: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def names_only(found: Attribution) -> dict[str, Any]:
        return {f"{name}-verdicts": None for name in found.splits}

    monkeypatch.setattr(html, "figures", names_only)  # drawing takes a second
    monkeypatch.setattr(html, "png", lambda figure: b"")
    before = load_state(attribution)
    rng = random.Random(0)
    refused = 0
    for index in range(150):
        root = tmp_path / str(index)
        folder, out = root / "run", root / "out"
        shutil.copytree(attribution, folder)
        signed = alter_state(rng, folder, sign=index % 2 == 0)
        with nothing_outside(root):
            result = CliRunner().invoke(app, ["report", str(folder), "--out", str(out)])
        assert result.exit_code in (0, 2), result.exception
        assert isinstance(result.exception, SystemExit | None)
        if result.exit_code == 2:
            refused += 1
            assert result.stderr.startswith("error: ")
            assert result.stderr.count("\n") == 1
            assert not out.exists()
        elif not signed:
            again = load_state(out)
            assert again[0] == before[0]
            assert all(
                torch.equal(again[1][k].nan_to_num(), v.nan_to_num()) for k, v in before[1].items()
            )
        else:
            assert "<script>alert" not in (out / "report.html").read_text()
    assert refused > 100


def test_checkpoints(tmp_path: Path) -> None:
    rng, refused = random.Random(1), 0
    configuration = {"steps": 3, "tol": 1e-6}
    for index in range(150):
        folder = tmp_path / str(index)
        progress = {"members": [0, 1, 2], "scale": (1.5).hex(), "done": 7}
        Checkpoint(folder, 0, configuration).save(progress, {"x": torch.arange(4.0)})
        alter_state(rng, folder, sign=False)
        try:
            with nothing_outside(folder):
                found = Checkpoint(folder, 0, configuration).load()
        except (ValueError, OSError):
            refused += 1
            continue
        assert found is not None
        assert found[0] == progress
        assert torch.equal(found[1]["x"], torch.arange(4.0))
    assert refused > 130


def test_journals(tmp_path: Path) -> None:
    rng, refused = random.Random(2), 0
    units = {f"{i}/0": {"x": 0.1 * i, "y": 1.0 + i} for i in range(4)}
    for index in range(100):
        path = tmp_path / f"{index}.resume"
        for key, unit in units.items():
            Journal(path, {"seed": 0}, ["x", "y"]).record(key, unit)
        way = rng.random()
        if way < 0.2:
            replaced(rng, path)
        elif way < 0.5:
            path.write_bytes(altered_bytes(rng, path.read_bytes()))
        else:
            path.write_text(json.dumps(altered_tree(rng, json.loads(path.read_text()))))
        try:
            with nothing_outside(tmp_path):
                found = Journal(path, {"seed": 0}, ["x", "y"])
        except ResumeError:
            refused += 1
            continue
        assert {key: found.get(key) for key in units} == units
    assert refused > 90


class Runs:
    """A pickle that would run code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_weights(tmp_path: Path) -> None:
    """A file of weights has no sum of itself: it is read as what it is, or refused."""
    rng, refused = random.Random(3), 0
    state = torch.nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "good.pt")
    safetensors.torch.save_file(state, tmp_path / "good.safetensors")
    good = {name: (tmp_path / f"good.{name}").read_bytes() for name in ("pt", "safetensors")}
    canary = tmp_path / "canary"
    good["pkl"] = pickle.dumps({"weight": Runs(canary)})
    for index in range(100):
        kind = rng.choice(["pt", "pt", "safetensors", "safetensors", "pkl"])
        path = tmp_path / f"{index}.{kind}"
        path.write_bytes(good[kind])
        if rng.random() < 0.2:
            replaced(rng, path)
        else:
            path.write_bytes(altered_bytes(rng, good[kind]))
        model = torch.nn.Linear(3, 2)
        try:
            with nothing_outside(tmp_path):
                load_weights(model, path)
        except (ValueError, OSError):
            refused += 1
        assert all(value.shape == state[name].shape for name, value in model.state_dict().items())
        assert not canary.exists()
    assert refused > 40
