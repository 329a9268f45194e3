"""A page on saved attributions: knockouts to click on and off, eigenvalues to point at.

``deepspec explore FOLDER`` serves it; :func:`deepspec.explore.explorer` shows it in a notebook.
Nothing is computed again: all that is shown was saved. The page needs Panel, the extra
``deepspec-ccm[explore]``; nothing here imports it before a page is asked for.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deepspec.explore.runs import Runs


def require_panel() -> None:
    """That Panel is installed.

    Raises
    ------
    ImportError
        If it is not; the message names the extra.
    """
    if find_spec("panel") is None:
        raise ImportError("the explorer needs Panel: pip install 'deepspec-ccm[explore]'")


def explorer(folder: str | Path) -> Any:
    """The page of ``deepspec explore`` as a Panel object, which a notebook shows as it is.

    Parameters
    ----------
    folder
        A saved attribution, or a folder that holds several (epochs, sizes, seeds).

    Raises
    ------
    FileNotFoundError
        If there is no attribution in it.
    ImportError
        If Panel is not installed: it comes with the extra ``deepspec-ccm[explore]``.

    Examples
    --------
    >>> explorer("no-such-folder")
    Traceback (most recent call last):
    FileNotFoundError: expected a folder that deepspec attribute wrote, or one that holds some, \
got no-such-folder: it does not exist
    """
    runs = Runs.under(folder)
    require_panel()
    from deepspec.explore.page import Page

    return Page(runs).view
