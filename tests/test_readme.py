"""Every code block of the README runs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
PYTHON = [body for kind, body in BLOCKS if kind == "python"]
CONSOLE = [line for kind, body in BLOCKS if kind == "console" for line in body.splitlines()]


def test_the_python_blocks_run_in_order() -> None:
    names: dict[str, object] = {}
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), names)


@pytest.mark.parametrize("line", CONSOLE)
def test_the_commands_run(line: str, tmp_path: Path) -> None:
    for block in PYTHON:
        if block.startswith("# ") and block.split("\n", 1)[0].endswith(".py"):
            (tmp_path / block.split("\n", 1)[0][2:]).write_text(block)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program, *arguments = shlex.split(line)
    if program == "make":
        # The whole of it would run these tests again; that the target exists is seen here.
        command, folder = ["make", "--dry-run", *arguments], ROOT
    elif program == "python":
        command, folder = [sys.executable, *arguments], tmp_path
    else:
        command, folder = [str(Path(sys.executable).parent / program), *arguments], tmp_path
    run = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
