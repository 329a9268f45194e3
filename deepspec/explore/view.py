"""What is shown: which run, which split, which knockouts; and how a URL says it.

A URL is input like any other: every value is checked, and a bad one is left out with a message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from deepspec.report.plots import style

PARTS = tuple(style.PARTS)  # whose knockouts a saved attribution holds
LONGEST = 2000  # characters of a query, beyond which it is not read


@dataclass(frozen=True, kw_only=True)
class View:
    """One view of the page.

    Attributes
    ----------
    run
        The place of the run in its folder, from 0.
    split
        "train" or "test".
    without
        The parts whose knockouts are shown.

    Examples
    --------
    >>> View(run=2, without=("between_class",)).query()
    '?run=2&split=train&without=between_class'
    """

    run: int = 0
    split: str = "train"
    without: tuple[str, ...] = ("between_class",)

    def query(self) -> str:
        """The view as a URL's query."""
        values = {"run": self.run, "split": self.split, "without": ",".join(self.without)}
        return "?" + urlencode(values, safe=",")


def parse_query(query: str, runs: int) -> tuple[View, tuple[str, ...]]:
    """The view that a URL asks for, and what was wrong with it.

    >>> parse_query("?run=7&split=test", runs=3)[1]
    ("run: expected a number from 0 to 2, got '7'",)
    """
    if len(query) > LONGEST:
        return View(), (f"the address is longer than {LONGEST} characters: it was not read",)
    view: dict[str, Any] = {}
    messages: list[str] = []
    for key, text in parse_qsl(query.removeprefix("?"), keep_blank_values=True):
        short = text if len(text) < 40 else text[:40] + "…"
        if key == "run":
            if re.fullmatch("[0-9]{1,6}", text, re.ASCII) and int(text) < runs:
                view["run"] = int(text)
            else:
                messages.append(f"run: expected a number from 0 to {runs - 1}, got {short!r}")
        elif key == "split":
            if text in ("train", "test"):
                view["split"] = text
            else:
                messages.append(f"split: expected train or test, got {short!r}")
        elif key == "without":
            names = tuple(text.split(",")) if text else ()
            if set(names) <= set(PARTS) and len(set(names)) == len(names):
                view["without"] = names
            else:
                messages.append(f"without: expected some of {', '.join(PARTS)}, got {short!r}")
        else:
            messages.append(f"expected run, split or without, got {key[:40]!r}")
    return View(**view), tuple(messages)
