"""The command ``deepspec blocks``: the spectra of all diagonal blocks in one table."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deepspec.cli.inputs import DIGITS, prepare
from deepspec.krylov import block_spectra
from deepspec.operators import GaussNewton, Hessian


class Matrix(StrEnum):
    """Which matrix."""

    G = "G"
    Hess = "Hess"


Parameters = Annotated[
    list[str] | None,
    typer.Option(
        help="Differentiate by these only: a glob such as 'transformer.h.*.attn.*', or re: and a "
        "regular expression. May be given several times."
    ),
]


def blocks(
    model: Annotated[str, typer.Option(help="As for attribute.")] = "mlp",
    weights: Annotated[Path | None, typer.Option(help="As for attribute.")] = None,
    data: Annotated[str, typer.Option(help="As for attribute.")] = DIGITS,
    paths: Annotated[
        list[str] | None,
        typer.Option("--block", help="A path; * is one step: 'h.*.attn'. Default: each module."),
    ] = None,
    parameters: Parameters = None,
    matrix: Annotated[Matrix, typer.Option(help="G or Hess.")] = Matrix.Hess,
    k: Annotated[int, typer.Option(help="Eigenvalues of each block.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="All randomness follows from it.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """The largest eigenvalues and the trace of every diagonal block, in one table.

    Example: deepspec blocks --model mynet.py:build --data mydata.py:train --block 'h.*.attn'
    """
    options = {"parameters": parameters} if parameters else {}
    problem = prepare(model, weights, data, None, None, None, None, seed, options).problem
    operator = GaussNewton(problem) if matrix is Matrix.G else Hessian(problem)
    found = block_spectra(operator, paths or None, k=k, seed=seed)
    if as_json:
        rows = [{**vars(block), "top": block.top.tolist()} for block in found.blocks]
        typer.echo(json.dumps({"operator": found.operator, "blocks": rows}, indent=1))
    else:
        typer.echo(str(found))
