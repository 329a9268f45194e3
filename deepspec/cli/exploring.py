"""The command ``deepspec explore``: a page on saved attributions, on the loopback address."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from deepspec.explore import require_panel
from deepspec.explore.runs import Runs
from deepspec.explore.view import View


def explore(
    folder: Annotated[
        Path, typer.Argument(help="What attribute or demo wrote, or a folder that holds several.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's are open to all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 5007,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Also open a browser.")
    ] = True,
) -> None:
    """A page on saved attributions: knockouts on and off, causes to point at; until interrupted.

    Needs the extra deepspec-ccm[explore]. Nothing is computed again.

    Example: deepspec explore runs/demo
    """
    runs = Runs.under(folder)
    runs.load(0)  # what cannot be read is said here, and not in a browser
    try:
        require_panel()
    except ImportError as error:
        raise ValueError(str(error)) from error
    port = _free_port(host, port)
    from deepspec.explore.page import serve

    address = f"http://{host}:{port}/{View().query()}"
    typer.echo(f"{address}\nEnd with Ctrl-C.")
    if browser:
        typer.launch(address)
    serve(runs, host, port)


def _free_port(host: str, port: int) -> int:
    """The port, or a free one for 0, if it can be listened on."""
    try:
        with socket.create_server((host, port)) as server:
            return int(server.getsockname()[1])
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --port, or 0 for "
            "any that is free"
        ) from error
