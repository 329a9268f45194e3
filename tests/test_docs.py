"""The pages of ``docs/`` say nothing that is not so: snippets run, tests exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "docs").glob("[sg]*/*.md"))
WITH_PYTHON = [page for page in PAGES if "```python\n" in page.read_text()]


def test_there_are_pages() -> None:
    assert len(WITH_PYTHON) > 5


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, page.name, "exec"), names)


def test_every_test_that_a_page_names_exists() -> None:
    named = {
        name for page in PAGES for name in re.findall(r"(tests/[\w/]+\.py::\w+)", page.read_text())
    }
    assert len(named) > 10
    for name in named:
        file, function = name.split("::")
        assert f"def {function}(" in (ROOT / file).read_text(), name
