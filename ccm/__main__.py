"""``python -m ccm`` is the command ``ccm``."""

from ccm.cli import app

app(prog_name="ccm")
