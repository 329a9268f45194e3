"""The command line: `deepspec`, or `python -m deepspec`."""

from deepspec.cli.commands import app
from deepspec.cli.dynamics import dynamics_command
from deepspec.cli.exploring import explore
from deepspec.cli.figure import figure_command
from deepspec.cli.layers import layers_command
from deepspec.cli.sweep import sweep_command, train_command

app.command(name="layers")(layers_command)
app.command(name="train")(train_command)
app.command(name="sweep")(sweep_command)
app.command(name="dynamics")(dynamics_command)
app.command(name="figure")(figure_command)
app.command()(explore)

__all__ = ["app"]
