"""The command line: `ccm`, or `python -m ccm`."""

from ccm.cli.commands import app

__all__ = ["app"]
