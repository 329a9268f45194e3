"""Make the benchmarks' own environment, run them all, and print their tables.

``make bench`` calls this. Peers are installed without their dependencies where those would
replace torch; results are written to bench/results/ as JSON.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "bench" / ".venv"
SCRIPTS = (
    "engine",
    "tokens",
    "exact",
    "krylov",
    "layers",
    "attribution",
    "distributed",
    "sweeps",
    "ccm",
)


def python() -> Path:
    return ENVIRONMENT / "bin" / "python"


def install() -> None:
    """Once, and again whenever a list of versions is newer than the environment."""
    ready = ENVIRONMENT / ".ready"
    sources = [ROOT / "constraints.txt", ROOT / "bench" / "peers.txt", ROOT / "pyproject.toml"]
    if ready.exists() and all(ready.stat().st_mtime > s.stat().st_mtime for s in sources):
        return
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pip = [str(python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", "constraints.txt", "-e", "."], cwd=ROOT, check=True)
    subprocess.run([*pip, "--no-deps", "-r", "bench/peers.txt"], cwd=ROOT, check=True)
    ready.touch()


def main() -> int:
    install()
    failed = []
    for name in sys.argv[1:] or SCRIPTS:
        result = ROOT / "bench" / "results" / f"{name}.json"
        command = [str(python()), "-m", f"bench.{name}", "--json", str(result)]
        print(f"\n== {name} ==", flush=True)
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
