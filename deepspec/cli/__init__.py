"""The command line: `deepspec`, or `python -m deepspec`."""

from deepspec.cli.commands import app

__all__ = ["app"]
