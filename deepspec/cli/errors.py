"""One line for every error, on stderr, and an exit status that says what kind of end it was.

0: right. 1: a negative finding. 2: what was asked for cannot be done. 130: interrupted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
import typer
from typer.core import TyperGroup

BAD_INPUT, INTERRUPTED = 2, 130

PACKAGE = str(Path(__file__).resolve().parents[1])
# Frames in there are not the user's.
INSTALLED = tuple(
    {
        os.path.realpath(sysconfig.get_paths()[name])
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    | {os.path.realpath(Path(torch.__file__).parents[1])}
)
# What deepspec raises of these says in its own words what was expected, what came, what to do.
IN_WORDS = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, LookupError)


class Terminated(SystemExit):
    """SIGTERM came. It unwinds as an exit does, so that what is half written is cleared away."""


class Failed(SystemExit):
    """What went wrong has been said."""


class OneLineErrors(TyperGroup):
    """A group of commands in which every error is one line on stderr: ``error: …``."""

    def main(self, *args: Any, **named: Any) -> Any:
        """Run a command and exit with its status."""
        if not named.get("standalone_mode", True):
            return super().main(*args, **named)
        try:
            status = super().main(*args, **{**named, "standalone_mode": False})
        except typer.Abort:
            fail("interrupted", INTERRUPTED)
        except Exception as error:
            # Of the command line itself: the same words, without the box around them.
            if hasattr(error, "format_message"):
                fail(one_line(error.format_message()))
            fail(described(error))
        if status == INTERRUPTED:  # Typer makes a status of Ctrl-C, and says nothing
            fail("interrupted", INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; SIGTERM unwinds it."""
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _terminated) if in_main else None
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)
        except (Terminated, Failed):
            raise
        except SystemExit as error:  # of the user's code: this program's own is typer.Exit
            fail(described(error))
        finally:
            if in_main:
                signal.signal(signal.SIGTERM, before)


def _terminated(number: int, _frame: object) -> NoReturn:
    raise Terminated(128 + number)


def fail(message: str, status: int = BAD_INPUT) -> NoReturn:
    """Say it in one line, and leave."""
    typer.echo(f"error: {message}", err=True)
    raise Failed(status)


def described(error: BaseException) -> str:
    """One line that says what went wrong and, where it was in the user's code, in which line.

    >>> described(ValueError("expected labels,\\n  got none"))
    'expected labels, got none'
    >>> described(KeyError("x"))
    "KeyError: 'x'"
    """
    frames = list(_frames(error))
    ours = max((i for i, frame in enumerate(frames) if _is_ours(frame[0])), default=-1)
    text = _text(error)
    place = _users(frames[ours + 1 :])
    if place is not None:
        return _raised(place, type(error).__name__, text)
    worker = _in_a_worker(text)
    if worker is not None:
        return worker
    if not isinstance(error, IN_WORDS) or (isinstance(error, LookupError) and ours < 0):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    for cause in _causes(error):
        place = _users(list(_frames(cause)))
        if place is not None:
            file, line, _ = place
            known = f"{Path(file).name}:{line}" in text
            return text if known else f"{text} ({_short(file)}:{line})"
    return text


def one_line(text: str) -> str:
    """Without line breaks."""
    return " ".join(text.split())


def _text(error: BaseException) -> str:
    """What it says; a KeyError shows its message as a literal."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    if isinstance(error, KeyError) and (not isinstance(said, str) or " " not in said):
        said = error
    # Tracebacks of other processes are in it; they are read before they are joined.
    text = str(said)
    return text if "Traceback (most recent call last)" in text else one_line(text)


def _raised(place: tuple[str, int, str], kind: str, text: str) -> str:
    file, line, function = place
    inside = "" if function == "<module>" else f"{function} in "
    return f"{inside}{_short(file)}:{line} raised {kind}{f': {text}' if text else ''}"


def _in_a_worker(text: str) -> str | None:
    """From the text of an error that came out of another process, with its traceback in it."""
    if "Traceback (most recent call last)" not in text:
        return None
    frames = [
        (file, int(line), function)
        for file, line, function in re.findall(r'File "(.+?)", line (\d+), in (\S+)', text)
    ]
    kind, _, message = text.strip().splitlines()[-1].partition(": ")
    place = _users(frames)
    return f"{kind}: {message}" if place is None else _raised(place, kind, message)


def _frames(error: BaseException) -> Iterator[tuple[str, int, str]]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield frame.f_code.co_filename, line, frame.f_code.co_name


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What it was raised from, and so on."""
    seen = {id(error)}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _users(frames: list[tuple[str, int, str]]) -> tuple[str, int, str] | None:
    """The last frame in a file that is neither installed nor this package's."""
    for frame in reversed(frames):
        file = frame[0]
        if not (file.startswith("<") or _is_ours(file) or _is_under(file, INSTALLED)):
            return frame
    return None


def _is_ours(file: str) -> bool:
    return _is_under(file, (PACKAGE,))


def _is_under(file: str, folders: tuple[str, ...]) -> bool:
    path = os.path.realpath(file)
    return any(path.startswith(folder + os.sep) for folder in folders)


def _short(file: str) -> str:
    """As a user would write it: from here, where it is below."""
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative
