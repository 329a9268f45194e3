"""The house rules: data flows one way, and the two libraries do not know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module may import only modules that stand earlier in its package's list.
ORDER = {
    "ccm": [
        "spectrum",
        "softmax_moments",
        "model",
        "fisher",
        "parts",
        "separation",
        "logistic",
        "symmetric",
        "bulk_law",
        "finite_sample",
        "bayes",
        "symbolic",
        "simulation",
        "resume",
        "sweep",
        "plots",
        "explore",
        "cli",
    ],
    "deepspec": [
        "memory",
        "classifier",
        "layers",
        "engine",
        "problem",
        "operators",
        "storage",
        "neural_tangent_kernel",
        "class_structure",
        "krylov",
        "attribution",
        "dynamics",
        "zoo",
        "report",
        "cli",
    ],
}
DRAWING = {"report", "plots"}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module named in an import of the file, relative imports made absolute."""
    package = path.relative_to(ROOT).parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            stem = ".".join(part for part in (base, node.module or "") if part)
            names.add(stem)
            names.update(f"{stem}.{alias.name}" for alias in node.names)
    return names


def station(package: str, dotted: str) -> str | None:
    """The entry of ORDER that a dotted module belongs to."""
    parts = dotted.split(".")
    if parts[0] != package or len(parts) < 2:
        return None
    return parts[1] if parts[1] in ORDER[package] else None


@pytest.mark.parametrize("package", ORDER)
def test_every_module_has_its_place(package: str) -> None:
    found = {
        path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in files(package)
    }
    assert found - {"__init__", "__main__"} <= set(ORDER[package])


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_upwards(package: str) -> None:
    order = ORDER[package]
    for path in files(package):
        here = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if here in {"__init__", "__main__"}:
            continue
        for name in imported(path):
            there = station(package, name)
            if there is not None and there != here:
                assert order.index(there) < order.index(here), f"{path}: imports {name}"


@pytest.mark.parametrize(("package", "stranger"), [("ccm", "deepspec"), ("deepspec", "ccm")])
def test_the_libraries_do_not_know_each_other(package: str, stranger: str) -> None:
    for path in files(package):
        roots = {name.split(".")[0] for name in imported(path)}
        assert stranger not in roots, path
        assert "validation" not in roots, path
        assert not (package == "ccm" and "torch" in roots), path


@pytest.mark.parametrize("package", ORDER)
def test_only_pictures_import_matplotlib(package: str) -> None:
    for path in files(package):
        if not DRAWING & {path.stem, path.parent.name}:
            assert "matplotlib" not in {name.split(".")[0] for name in imported(path)}, path


def test_only_the_engine_speaks_to_other_processes() -> None:
    """The type of a process group may be named anywhere: users hand it over."""
    for path in files("deepspec"):
        names = {name for name in imported(path) if name.startswith("torch.distributed")}
        if path.relative_to(ROOT / "deepspec").parts[0] != "engine":
            assert names <= {"torch.distributed", "torch.distributed.ProcessGroup"}, path
            whole = {"import torch.distributed", "from torch import distributed"}
            assert not whole & set(map(str.strip, path.read_text().splitlines())), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                # These pickle what they send.
                assert not node.attr.endswith(("_object", "_object_list")), path


def test_nothing_unpickles() -> None:
    """Naming the error that a refused pickle raises is all that is allowed."""
    for package in ("ccm", "deepspec", "validation"):
        for path in files(package):
            pickles = {name for name in imported(path) if name.split(".")[0] == "pickle"}
            assert pickles <= {"pickle", "pickle.UnpicklingError"}, path
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in {
                    "torch.load",
                    "np.load",
                }:
                    options = {key.arg: ast.unparse(key.value) for key in node.keywords}
                    assert options.get("weights_only") == "True", path
