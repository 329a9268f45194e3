"""The face of the library: few names, each explained on a screen, first in plain words."""

import inspect
import pydoc
import re
from pathlib import Path

import pytest

import deepspec

SCREEN = 60
# What left the top level, and where it is.
ELSEWHERE = {
    "Compression": "operators",
    "KernelPolynomialDensity": "krylov.baselines",
    "LinearCombination": "operators",
    "Means": "class_structure",
    "Outliers": "krylov",
    "PowerLaw": "krylov",
    "PullbackOperator": "operators",
    "TangentKernel": "neural_tangent_kernel",
    "Tridiagonal": "krylov",
    "cell_means": "class_structure",
    "class_means": "class_structure",
    "cross_class_deviations": "class_structure",
    "kernel_polynomial_density": "krylov.baselines",
    "own_class_means": "class_structure",
    "subspace_iteration": "krylov.baselines",
}


def first_sentence(name: str) -> str:
    paragraph = (inspect.getdoc(getattr(deepspec, name)) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def test_there_are_few_names_each_once() -> None:
    assert len(deepspec.__all__) == len(set(deepspec.__all__)) <= 40


@pytest.mark.parametrize("name", deepspec.__all__)
def test_help_fits_a_screen(name: str) -> None:
    """All of a function; of a class its signature and docstring, before the list of methods."""
    public = getattr(deepspec, name)
    if inspect.isclass(public):
        signature = inspect.signature(public).parameters
        lines = [*signature, *(inspect.getdoc(public) or "").splitlines()]
    else:
        lines = pydoc.plain(pydoc.render_doc(public)).splitlines()
    assert len(lines) <= SCREEN


@pytest.mark.parametrize("name", deepspec.__all__)
def test_help_begins_with_a_sentence_in_plain_words(name: str) -> None:
    sentence = first_sentence(name)
    assert re.fullmatch(r"[A-Z][^.:]{20,}[:,;]?[^.]*\.( .*)?", sentence), sentence
    assert not re.search(r"[Α-ωᵀ√∂∇Σ·²′_^=]|:\w+:|\[\d", sentence), sentence  # no formula, no role
    assert len(sentence.split()) >= 6, sentence


def test_the_library_says_where_to_start_and_what_it_cites() -> None:
    text = deepspec.__doc__ or ""
    for paper in ("Papyan (2018)", "Papyan (2019)", "Papyan (2020)", "Papyan, Han, Donoho (2020)"):
        assert paper in text
    for name in re.findall(r"deepspec\.(\w+)\(", text):
        assert name in deepspec.__all__
    assert len(text.splitlines()) <= SCREEN


@pytest.mark.parametrize(("name", "package"), ELSEWHERE.items())
def test_what_left_the_top_level_is_in_its_package(name: str, package: str) -> None:
    home = deepspec
    for part in package.split("."):
        home = getattr(home, part)
    assert name in home.__all__
    assert not hasattr(deepspec, name)


def test_papers_are_cited_by_name() -> None:
    root = Path(__file__).parents[2]
    for package in ("deepspec", "ccm", "validation"):
        for path in (root / package).rglob("*.py"):
            assert not re.search(r"\[00\d\]", path.read_text()), path


@pytest.mark.parametrize("package", ["attribution", "class_structure", "krylov"])
def test_a_package_says_where_things_are(package: str) -> None:
    home = Path(__file__).parents[2] / "deepspec" / package
    named = re.findall(r"``(\w+\.py)``", (home / "__init__.py").read_text().split('"""')[1])
    assert len(named) >= 7
    for name in named:
        assert (home / name).is_file(), name
