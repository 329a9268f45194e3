"""How the documentation is built: `make docs`, offline, with warnings as errors."""

import shutil
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

project = "deepspec and ccm"
author = "The deepspec developers"
copyright = "2026, the deepspec developers"
release = installed_version("deepspec-ccm")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",  # formulas without a network
]
exclude_patterns = ["_build", "gallery/*"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# A page a public name, made at each build and kept out of the repository.
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings' own sections give types and shapes
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": ["gallery"],
    "gallery_dirs": ["examples"],
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
    "plot_gallery": True,
    "min_reported_time": 20,
}

html_theme = "pydata_sphinx_theme"
html_title = "deepspec and ccm"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_nav_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def _bars_are_norms(app, what, name, obj, options, lines) -> None:
    """|λ| in a docstring is an absolute value, not reStructuredText's substitution."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            pieces = line.split("``")  # odd ones are code
            pieces[::2] = [piece.replace("|", r"\|") for piece in pieces[::2]]
            lines[number] = "``".join(pieces)


PACKAGES = {
    "deepspec": "deepspec: what most people need",
    "deepspec.losses": "Losses",
    "deepspec.operators": "Operators: matrices known by their products",
    "deepspec.class_structure": "Class structure: arrays, parts, means",
    "deepspec.neural_tangent_kernel": "The neural tangent kernel",
    "deepspec.krylov": "Krylov: spectra by few products",
    "deepspec.krylov.baselines": "The papers' other estimators, to compare with",
    "deepspec.layerwise": "Layers: features, errors, Kronecker factors",
    "deepspec.attribution": "Attribution: causes, nulls, verdicts",
    "deepspec.dynamics": "Dynamics: spectra while a net is trained",
    "deepspec.experiments": "Experiments: sweeps",
    "ccm": "ccm: what theory predicts",
}


def write_reference() -> None:
    """Every public name on one page, once, in the order of each package's ``__all__``."""
    lines, listed = ["# Reference", "", "Every public name.", ""], set()
    for package, title in PACKAGES.items():
        module = import_module(package)
        names = [n for n in module.__all__ if id(getattr(module, n)) not in listed]
        objects = [n for n in names if callable(getattr(module, n))]
        listed |= {id(getattr(module, name)) for name in objects}
        lines += [f"## {title}", "", "```{eval-rst}"]
        lines += [".. autosummary::", "   :toctree: generated", ""]
        lines += [f"   {package}.{name}" for name in objects] + ["```", ""]
    page = Path(__file__).parent / "reference" / "index.md"
    shutil.rmtree(page.parent, ignore_errors=True)  # pages of names that are gone
    page.parent.mkdir()
    page.write_text("\n".join(lines))


def setup(app) -> None:
    """What Sphinx calls."""
    write_reference()
    app.connect("autodoc-process-docstring", _bars_are_norms, priority=100)
