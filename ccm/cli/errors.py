"""One line for every error, on stderr, and an exit status that says what kind of end it was.

0: right. 2: what was asked for cannot be done. 130: interrupted.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

BAD_INPUT, INTERRUPTED = 2, 130


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
            fail(error.format_message() if hasattr(error, "format_message") else described(error))
        if status == INTERRUPTED:  # Typer makes a status of Ctrl-C, and says nothing
            fail("interrupted", INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)


def fail(message: str, status: int = BAD_INPUT) -> NoReturn:
    """Say it in one line, and leave."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(status)


def described(error: Exception) -> str:
    """What it says, and its kind where that is needed to understand it.

    >>> described(ValueError("snr must be finite")), described(KeyError("x"))
    ('snr must be finite', "KeyError: 'x'")
    """
    plain = (ValueError, TypeError, OSError, ArithmeticError, RuntimeError, MemoryError)
    text = str(error)
    return text if isinstance(error, plain) and text else f"{type(error).__name__}: {text}"
