"""What one view of the explorer depends on, and how a URL says it.

A URL is input like any other: every value is checked, a bad one is left out with a message that
says what was expected, and the view takes that value's default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ccm.model import CanonicalClassificationModel, as_count, as_real
from ccm.sweep import Alpha
from ccm.symmetric import as_alpha

LARGEST = {
    "dim": 100_000,
    "num_classes": 100,
    "snr": 12.0,
    "per_class": 1_000_000,
    "seed": 2**31 - 1,
}
KEYS = {
    "dim": "dim",
    "classes": "num_classes",
    "snr": "snr",
    "per_class": "per_class",
    "alpha": "alpha",
    "seed": "seed",
}
_FIELDS = 30  # of a query, beyond which it is not read
_INTEGER = re.compile(r"[0-9]{1,12}")
_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, kw_only=True)
class ViewState:
    """D, C, t, N, α and the seed of simulated samples.

    Parameters
    ----------
    dim, num_classes, snr
        D, C and t of the model, up to 100000, 100 and 12 here (the library takes more).
    per_class
        N, samples of each class, 1 to a million.
    alpha
        α of levels 1 and 2: a number from 0 to 1 - 1/C, or "bayes" (the Bayes classifier's), or
        "measured" (that of a classifier fitted to simulated samples).
    seed
        Of the samples, from 0.

    Raises
    ------
    TypeError, ValueError
        If a value is of the wrong type or out of its range.

    Examples
    --------
    >>> ViewState(snr=2.5).query()
    '?dim=100&classes=10&snr=2.5&per_class=100&alpha=bayes&seed=0'
    """

    dim: int = 100
    num_classes: int = 10
    snr: float = 3.0
    per_class: int = 100
    alpha: Alpha = "bayes"
    seed: int = 0

    def __post_init__(self) -> None:
        plain: dict[str, Any] = {
            "dim": as_count(self.dim, "dim", 2),
            "num_classes": as_count(self.num_classes, "num_classes", 2),
            "per_class": as_count(self.per_class, "per_class", 1),
            "seed": as_count(self.seed, "seed", 0),
            "snr": as_real(self.snr, "snr"),
        }
        for name, top in LARGEST.items():
            if not plain[name] <= top:
                raise ValueError(
                    f"{name} must be at most {top:g} in the explorer, got {plain[name]:g}"
                )
        plain["snr"] = CanonicalClassificationModel(
            plain["dim"], plain["num_classes"], plain["snr"]
        ).snr
        if not isinstance(self.alpha, str):
            plain["alpha"] = as_alpha(plain["num_classes"], self.alpha)
        elif self.alpha not in ("bayes", "measured"):
            raise ValueError(f"alpha is a number, 'bayes' or 'measured', got {self.alpha!r}")
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @property
    def model(self) -> CanonicalClassificationModel:
        """CCM(D, C) at SNR t."""
        return CanonicalClassificationModel(self.dim, self.num_classes, self.snr)

    def query(self) -> str:
        """The view as a URL's query; numbers in their shortest exact form.

        Examples
        --------
        >>> parse_query(ViewState(alpha=0.1).query())[0] == ViewState(alpha=0.1)
        True
        """
        values = {key: getattr(self, name) for key, name in KEYS.items()}
        values["snr"] = f"{self.snr:g}" if float(f"{self.snr:g}") == self.snr else repr(self.snr)
        return "?" + urlencode(values)

    def moved(self, **changes: Any) -> ViewState:
        """The view after one of its values was moved; others give way where they must.

        D stays at or above C: the one that was not moved gives way. A fixed α stays at or below
        1 - 1/C.

        Raises
        ------
        TypeError, ValueError
            If a new value is out of its own range.

        Examples
        --------
        >>> ViewState(dim=20).moved(num_classes=30).dim
        30
        """
        dim = changes.get("dim", self.dim)
        classes = changes.get("num_classes", self.num_classes)
        if dim < classes:
            if "dim" in changes:
                changes["num_classes"] = classes = dim
            else:
                changes["dim"] = classes
        alpha = changes.get("alpha", self.alpha)
        if not isinstance(alpha, str):
            changes["alpha"] = min(alpha, 1 - 1 / classes)
        return replace(self, **changes)


def parse_query(query: str) -> tuple[ViewState, tuple[str, ...]]:
    """The view that a URL's query asks for, and a message for everything in it that is bad.

    Examples
    --------
    >>> state, messages = parse_query("?dim=40&snr=fast")
    >>> state.dim, state.snr
    (40, 3.0)
    >>> messages
    ("snr takes a number from 0 to 12, got 'fast'",)
    """
    try:
        pairs = parse_qsl(
            query.removeprefix("?"), keep_blank_values=True, max_num_fields=_FIELDS, errors="strict"
        )
    except (ValueError, UnicodeError):
        return ViewState(), (f"the address holds no readable view: {_shown(query)}",)
    values: dict[str, Any] = {}
    messages: list[str] = []
    for key, text in pairs:
        if key not in KEYS:
            messages.append(f"there is no {_shown(key)} to set; there are {', '.join(KEYS)}")
        elif KEYS[key] in values:
            messages.append(f"{key} is given twice; the first one counts")
        else:
            try:
                values[KEYS[key]] = _value(key, text)
            except ValueError as error:
                messages.append(str(error))
    defaults = {field.name: field.default for field in fields(ViewState)}
    dim = values.get("dim", defaults["dim"])
    classes = values.get("num_classes", defaults["num_classes"])
    if dim < classes:
        messages.append(f"dim must be at least classes, got dim={dim} and classes={classes}")
        for name in ("dim", "num_classes"):
            values.pop(name, None)
        classes = defaults["num_classes"]
    if not isinstance(values.get("alpha", ""), str):
        try:
            as_alpha(classes, values["alpha"])
        except ValueError as error:
            messages.append(str(error))
            del values["alpha"]
    return ViewState(**values), tuple(messages)


def _value(key: str, text: str) -> Any:
    """One value, by itself; what depends on two of them is checked later."""
    name = KEYS[key]
    if name == "alpha":
        if text in ("bayes", "measured"):
            return text
        if not _DECIMAL.fullmatch(text):
            raise ValueError(f"alpha takes a number, bayes or measured, got {_shown(text)}")
        return float(text)
    if name == "snr":
        if not _DECIMAL.fullmatch(text) or float(text) > LARGEST["snr"]:
            raise ValueError(f"snr takes a number from 0 to {LARGEST['snr']:g}, got {_shown(text)}")
        return float(text)
    least = {"dim": 2, "num_classes": 2, "per_class": 1, "seed": 0}[name]
    if not _INTEGER.fullmatch(text) or not least <= int(text) <= LARGEST[name]:
        raise ValueError(
            f"{key} takes a whole number from {least} to {LARGEST[name]}, got {_shown(text)}"
        )
    return int(text)


def _shown(text: str) -> str:
    """Foreign text, short enough to be shown."""
    return repr(text if len(text) <= 40 else text[:40] + "…")
