"""The command line: `deepspec`, or `python -m deepspec`."""

from deepspec.cli.commands import app
from deepspec.cli.sweep import sweep_command, train_command

app.command(name="train")(train_command)
app.command(name="sweep")(sweep_command)

__all__ = ["app"]
