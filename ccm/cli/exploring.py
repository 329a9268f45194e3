"""The command ``ccm explore``: the explorer's page, on the loopback address."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from ccm.cli.sweeping import parse_alpha
from ccm.explore import require_panel
from ccm.explore.state import ViewState


def explore(
    dim: Annotated[int, typer.Option("--dim", "-d", help="D to begin with.")] = 100,
    classes: Annotated[int, typer.Option("--classes", "-c", help="C to begin with.")] = 10,
    snr: Annotated[float, typer.Option("--snr", "-t", help="t to begin with, up to 12.")] = 3.0,
    per_class: Annotated[int, typer.Option("--per-class", "-n", help="N to begin with.")] = 100,
    alpha: Annotated[
        str, typer.Option("--alpha", "-a", help="A number, or 'bayes', or 'measured'.")
    ] = "bayes",
    seed: Annotated[int, typer.Option(help="Seed of simulated samples.")] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's are open to all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 5006,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Also open a browser.")
    ] = True,
) -> None:
    """A page to move D, C, t, N and α on, with every level beside; until interrupted.

    Needs the extra deepspec-ccm[explore].

    Example: ccm explore --dim 1000 --classes 10 --snr 3 --per-class 1000
    """
    state = ViewState(
        dim=dim,
        num_classes=classes,
        snr=snr,
        per_class=per_class,
        alpha=parse_alpha(alpha),
        seed=seed,
    )
    try:
        require_panel()
    except ImportError as error:
        raise ValueError(str(error)) from error
    port = free_port(host, port)
    from ccm.explore.page import serve

    address = f"http://{host}:{port}/"
    typer.echo(f"{address}{state.query()}\nEnd with Ctrl-C.")
    if browser:
        typer.launch(f"{address}{state.query()}")
    serve(host, port, show=False)


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0, if it can be listened on.

    Raises
    ------
    OSError
        If it cannot: the message says what to do.

    Examples
    --------
    >>> free_port("127.0.0.1", 0) > 0
    True
    """
    try:
        with socket.create_server((host, port)) as server:
            return int(server.getsockname()[1])
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --port, or 0 for "
            "any that is free"
        ) from error
