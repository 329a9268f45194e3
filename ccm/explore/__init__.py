"""The explorer: a page on which D, C, t, N and α are moved and every level of theory answers.

``ccm explore`` serves it; :func:`ccm.explorer` shows it in a notebook. The page needs Panel, the
extra ``deepspec-ccm[explore]``; nothing here imports it before a page is asked for.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ccm.explore.state import ViewState
from ccm.sweep import Alpha


def require_panel() -> None:
    """That Panel is installed.

    Raises
    ------
    ImportError
        If it is not; the message names the extra.
    """
    if find_spec("panel") is None:
        raise ImportError("the explorer needs Panel: pip install 'deepspec-ccm[explore]'")


def explorer(
    dim: int = 100,
    num_classes: int = 10,
    snr: float = 3.0,
    per_class: int = 100,
    alpha: Alpha = "bayes",
    seed: int = 0,
) -> Any:
    """The page of ``ccm explore`` as a Panel object, which a notebook shows as it is.

    Parameters
    ----------
    dim, num_classes, snr, per_class
        D, C, t and N to begin with.
    alpha
        A number, "bayes" or "measured"; see :class:`ccm.explore.state.ViewState`.
    seed
        Of simulated samples.

    Raises
    ------
    TypeError, ValueError
        If a value is out of its range.
    ImportError
        If Panel is not installed: it comes with the extra ``deepspec-ccm[explore]``.

    Examples
    --------
    >>> explorer(dim=3, num_classes=5)
    Traceback (most recent call last):
    ValueError: dim must be at least num_classes (one orthogonal mean a class), got dim=3 and \
num_classes=5; raise dim or take fewer classes
    """
    state = ViewState(
        dim=dim, num_classes=num_classes, snr=snr, per_class=per_class, alpha=alpha, seed=seed
    )
    require_panel()
    from ccm.explore.page import Page

    return Page(state).view
