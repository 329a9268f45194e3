"""The house rules: data flows one way, and the two libraries do not know each other."""

import ast
import re
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
        "arguments",
        "seeds",
        "classifier",
        "losses",
        "layers",
        "engine",
        "problem",
        "next_tokens",
        "operators",
        "storage",
        "neural_tangent_kernel",
        "class_structure",
        "krylov",
        "layerwise",
        "attribution",
        "dynamics",
        "zoo",
        "experiments",
        "report",
        "explore",
        "cli",
    ],
}
DRAWING = {"report", "plots"}
TYPED_ONLY = ROOT / "deepspec" / "storage" / "display.py"


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
            roots = {name.split(".")[0] for name in imported(path)}
            assert "matplotlib" not in roots or path == TYPED_ONLY, path


def test_results_are_drawn_by_a_name_and_nothing_else_runs_back() -> None:
    """``result.plot()`` must reach ``report.plots``, a later floor; Matplotlib only then.

    So it looks the drawing up by its module's name, in one place; Matplotlib's type is named there
    for the checker alone. A registry would have to be filled by someone who imports the pictures.
    """
    by_name = {
        (path, text.value)
        for path in files("deepspec")
        for text in ast.walk(ast.parse(path.read_text()))
        if isinstance(text, ast.Constant)
        and isinstance(text.value, str)
        and re.fullmatch(r"deepspec(\.\w+)+", text.value)
        and (ROOT / f"{text.value.replace('.', '/')}.py").is_file()
    }
    assert by_name == {(TYPED_ONLY, "deepspec.report.plots.results")}
    outside = [
        node
        for node in ast.parse(TYPED_ONLY.read_text()).body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    assert "import matplotlib" not in "\n".join(map(ast.unparse, outside))
    assert "from matplotlib" not in "\n".join(map(ast.unparse, outside))


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


def test_one_file_knows_dask() -> None:
    for package in ("ccm", "deepspec", "validation"):
        for path in files(package):
            roots = {name.split(".")[0] for name in imported(path)}
            if path != ROOT / "deepspec" / "experiments" / "cluster.py":
                assert not roots & {"dask", "distributed"}, path


def bound(path: Path) -> set[str]:
    """The names that a file's own lines give to functions, classes, values and imports."""
    names: set[str] = set()
    own = ".".join(path.relative_to(ROOT).parts[:-1])
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and node.module != own:  # a package's modules
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return names


@pytest.mark.parametrize("package", ["ccm", "deepspec", "validation", "bench"])
def test_one_import_path_a_name(package: str) -> None:
    """No public module defines its own name, and no package binds that of a module in it.

    Either would hide the module: ``package.name`` is then the function, and ``import
    package.name`` the module.
    """
    for path in files(package):
        if path.name == "__init__.py":
            inside = {p.stem for p in path.parent.glob("*.py")} | {
                p.parent.name for p in path.parent.glob("*/__init__.py")
            }
            assert not bound(path) & inside, path
        elif not path.stem.startswith("_"):
            assert path.stem not in bound(path), path
