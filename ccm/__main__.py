"""``python -m ccm`` is the command ``ccm``."""

from ccm.cli.commands import app

if __name__ == "__main__":
    app(prog_name="ccm")
