"""The wheel has all that the libraries need, and runs where the repository is not."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's contents, which is what an installation copies."""
    pytest.importorskip("setuptools", minversion="77", reason="the wheel is built with setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy of what is tracked or new: setuptools leaves `build/` in the source folder.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for package in ("ccm", "deepspec"):
        (source / package).symlink_to(ROOT / package)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith("deepspec_ccm-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -P: not the working folder, so that nothing of the repository can be imported by chance.
    code = (
        "import sys, runpy, deepspec; "
        f"assert deepspec.__file__.startswith({str(unpacked)!r}), deepspec.__file__; "
        f"sys.argv = {list(arguments)!r}; runpy.run_module(sys.argv[0], run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_attribution_with_its_report_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (tmp_path / "mynet.py").write_text(readme.split("# mynet.py\n")[1].split("```")[0])
    named = "--model mynet.py:build --data mynet.py:data"
    arguments = f"{named} --draws 2 --out net --json".split()
    done = run(unpacked, tmp_path, "deepspec", "attribute", *arguments)
    assert done.returncode in (0, 1), done.stderr
    assert (tmp_path / "net" / "report.html").read_text().startswith("<!doctype html>")


def test_ccm_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    arguments = ["spectrum", "--dim", "9", "--classes", "3", "--snr", "2", "--alpha", "0.1"]
    done = run(unpacked, tmp_path, "ccm", *arguments)
    assert done.returncode == 0, done.stderr
    assert "outliers" in done.stdout
