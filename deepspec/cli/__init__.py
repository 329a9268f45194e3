"""The command line: `deepspec`, or `python -m deepspec`."""

from deepspec.cli.commands import app
from deepspec.cli.layers import layers_command

app.command(name="layers")(layers_command)

__all__ = ["app"]
