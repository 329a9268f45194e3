"""``python -m deepspec`` is the command ``deepspec``."""

from deepspec.cli import app

if __name__ == "__main__":
    app(prog_name="deepspec")
