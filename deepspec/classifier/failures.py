"""One clear line for what a user's own code raised: a Dataset, a model, a function."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

# Their lines say nothing about where the user's code went wrong.
NOT_THE_USERS = ("torch", "deepspec", "numpy")


def raised(error: BaseException) -> str:
    """``KeyError: 'x' (nets.py:5)``: type, words, and the last line of the user's it went through.

    >>> try:
    ...     {}["x"]
    ... except KeyError as error:
    ...     print(raised(error).split(" (")[0])
    KeyError: 'x'
    """
    words = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    # A worker process sends its whole traceback; the last line is the error.
    remote = any("Original Traceback" in line for line in words)
    said = (words[-1] if remote else words[0]) if words else ""
    kind = type(error).__name__
    said = said.removeprefix(f"{kind}: ")
    where = _line(error) if not remote else _remote_line(words)
    return kind + (f": {said}" if said else "") + (f" ({where})" if where else "")


def _line(error: BaseException) -> str | None:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _users(frame.filename):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return None


def _remote_line(words: list[str]) -> str | None:
    for line in reversed(words):
        if line.startswith('File "'):
            file, _, rest = line.removeprefix('File "').partition('", line ')
            if _users(file):
                return f"{Path(file).name}:{rest.partition(',')[0]}"
    return None


def _users(filename: str) -> bool:
    parts = Path(filename).parts
    if "site-packages" in parts:
        return not any(name in parts for name in NOT_THE_USERS)
    here = Path(__file__).resolve().parent.parent
    standard = Path(traceback.__file__).resolve().parent
    path = Path(filename)
    inside = here in path.parents or (standard in path.parents and standard != path.parent.parent)
    return not inside and filename not in sys.builtin_module_names and not filename.startswith("<f")
