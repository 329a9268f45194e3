"""A run that is killed in the middle of a study goes on net by net."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deepspec.class_structure.two_way import TwoWayLayout
from validation import _attributed, _record
from validation._record import NETS, keeping, kept

LAYOUT = TwoWayLayout(
    class_alone=0.5,
    cross_class_alone=0.25,
    by_class=0.125,
    by_cross_class=0.1,
    shared=0.2,
    interaction=0.3,
    total=1.0,
)
SCRIPT = """
import sys, time
from pathlib import Path
from validation import _attributed
from validation._record import keeping
from tests.validation.test_resuming import LAYOUT

def made(seed, quick, place):
    print("making", seed, flush=True)
    if seed == 1 and len(sys.argv) > 2:
        time.sleep(600)
    return _attributed.Layouts(moments=[LAYOUT] * (seed + 1))

_attributed._layouts = made
with keeping(Path(sys.argv[1])):
    print([len(found) for found in _attributed.layouts("quick")], flush=True)
"""


def script(out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, str(out), *more]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_with_the_next_net(tmp_path: Path) -> None:
    first = script(tmp_path, "hang")
    assert first.stdout is not None
    assert [first.stdout.readline() for _ in range(2)] == ["making 0\n", "making 1\n"]
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    first.stdout.close()
    second, _ = script(tmp_path).communicate()
    assert second == "making 1\n[1, 2]\n"


def test_what_is_kept_is_what_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path | None] = []

    def work(place: Path | None) -> _attributed.Layouts:
        made.append(place)
        if place is not None:
            place.mkdir(parents=True)
            (place / "part").touch()
        return _attributed.Layouts(moments=[LAYOUT])

    with keeping(None):
        kept("net", _attributed.Layouts, work)
    assert made == [None]
    with keeping(tmp_path):
        for _ in range(2):
            assert kept("net", _attributed.Layouts, work).moments == [LAYOUT]
        assert len(made) == 2
        (folder,) = (tmp_path / NETS).iterdir()  # the checkpoints are gone
        (folder / "manifest.json").write_text("{")
        assert kept("net", _attributed.Layouts, work).moments == [LAYOUT]
        assert len(made) == 3
        monkeypatch.setattr(_record, "fingerprint", lambda: "other code")
        kept("net", _attributed.Layouts, work)
    assert len(made) == 4


def test_a_net_goes_on_with_its_own_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attributed, "train", lambda *_, **__: SimpleNamespace(error_rate=0.0))
    monkeypatch.setattr(_attributed, "attribute", lambda *_, **settings: settings)
    monkeypatch.setattr(_attributed, "Problem", lambda *_: None)
    settings = _attributed._attributed("mlp", 0, True, tmp_path)
    assert isinstance(settings, dict)
    assert settings["checkpoint"] == tmp_path
