"""The spectra of all diagonal blocks in one table: which layers are sharp?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov._trace import trace
from deepspec.krylov.eigenpairs import top_eigenpairs
from deepspec.operators import GaussNewton, Hessian, Residual, SymmetricOperator
from deepspec.operators.block import ParameterBlock
from deepspec.operators.on_problem import ProblemOperator
from deepspec.problem import Problem
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.display import Result, Table, Tabular

# Smaller blocks are formed, and their spectra exact.
FORMED_UP_TO = 256
Blocks = str | Sequence[str] | Mapping[str, Sequence[str]] | None


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class BlockSpectrum(Result, Tabular):
    """The top of one diagonal block's spectrum.

    Attributes
    ----------
    name, size
        Of the block; how many parameters it has.
    top
        Its largest eigenvalues, descending, float64.
    trace, trace_error
        Its trace, and the standard error of that (0 where the block was formed).
    """

    name: str
    size: int
    top: Float[Tensor, " k"]
    trace: float
    trace_error: float

    def _table(self) -> Table:
        return {"eigenvalue": self.top}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class BlockSpectra(Result, Tabular):
    """All blocks of one operator; prints as a table.

    Attributes
    ----------
    operator
        Whose blocks they are.
    blocks
        Each one's top and trace, in the order of θ.
    matvecs
        Products with J, Jᵀ and second derivatives that all of it took.
    """

    operator: str
    blocks: tuple[BlockSpectrum, ...]
    matvecs: int

    def _words(self) -> list[str]:
        most = max(self.blocks, key=lambda block: float(block.top[0]))
        return [
            f"{len(self.blocks)} blocks of {self.operator}",
            f"the largest eigenvalue {float(most.top[0]):.4g} in {most.name}",
            f"{self.matvecs:,} matvecs",
        ]

    def _table(self) -> Table:
        most = max(len(block.top) for block in self.blocks)

        def number(block: BlockSpectrum, place: int) -> float:
            return float(block.top[place]) if place < len(block.top) else math.nan

        return {
            "block": [block.name for block in self.blocks],
            "parameters": [block.size for block in self.blocks],
            "trace": [block.trace for block in self.blocks],
            "trace_error": [block.trace_error for block in self.blocks],
            **{
                f"eigenvalue {place + 1}": [number(block, place) for block in self.blocks]
                for place in range(most)
            },
        }

    def __getitem__(self, name: str) -> BlockSpectrum:
        return {block.name: block for block in self.blocks}[name]

    def __str__(self) -> str:
        width = max(len("block"), *(len(block.name) for block in self.blocks))
        head = f"{'block':{width}}  parameters       trace"
        lines = [f"{head}  largest eigenvalues of {self.operator}"]
        for block in self.blocks:
            top = "  ".join(f"{value:.3e}" for value in block.top.tolist())
            lines.append(f"{block.name:{width}}  {block.size:10,}  {block.trace:10.3e}  {top}")
        return "\n".join(lines)


def block_spectra(
    operator: ProblemOperator,
    blocks: Blocks = None,
    *,
    k: int = 3,
    matvecs: int = 60,
    tol: float = 1e-3,
    seed: Seed = 0,
) -> BlockSpectra:
    """The top eigenvalues and the trace of every diagonal block, in one table.

    Parameters
    ----------
    operator
        G, Hess, E or a part of G.
    blocks
        Paths with ``*`` for one step of a name: ``"transformer.h.*.attn"`` makes a block of each
        layer's attention. Or names of blocks with their patterns. By default each module's own.
    k
        Eigenvalues of each.
    matvecs, tol, seed
        Of the estimated traces (blocks of more than 256 parameters), and of the eigenvalues.

    Raises
    ------
    ValueError
        If a path fits no parameter.

    >>> from deepspec.operators import GaussNewton
    >>> from deepspec.problem import Problem
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).double()
    >>> problem = Problem(model, (torch.eye(2).double(), torch.tensor([0, 1])))
    >>> [block.name for block in block_spectra(GaussNewton(problem), "*").blocks]
    ['0', '1']
    """
    problem = operator.problem
    chosen = blocks_of(problem.space.names, blocks)
    spent = 0
    seed = whole_seed(seed)
    found = []
    for name, names in chosen.items():
        block = _block(operator, names)
        before = sum(_problem(block).engine.spent.values())
        block.prepare(matvecs + 10 * k)
        if block.size <= FORMED_UP_TO:
            values = torch.linalg.eigvalsh(block.to_dense().double()).flip(0)
            total, error = float(values.sum()), 0.0
        else:
            estimate = trace(block, matvecs, seed=seed)
            total, error = estimate.value, estimate.standard_error
            values = top_eigenpairs(block, k, tol=tol, seed=seed).values.double()
        spent += sum(_problem(block).engine.spent.values()) - before
        found.append(
            BlockSpectrum(
                name=name, size=block.size, top=values[:k].cpu(), trace=total, trace_error=error
            )
        )
    return BlockSpectra(
        operator=operator.describe(),
        blocks=tuple(found),
        matvecs=spent,
    )


def _block(operator: ProblemOperator, names: tuple[str, ...]) -> SymmetricOperator:
    """G, Hess and E differentiate by these tensors alone; what is left of others is the same."""
    if type(operator) in (GaussNewton, Hessian, Residual):
        kind: Callable[[Problem], ProblemOperator] = type(operator)
        return kind(operator.problem.restricted(names))
    return ParameterBlock(operator, names)


def _problem(block: SymmetricOperator) -> Problem:
    if isinstance(block, ParameterBlock):
        return block.operator.problem
    assert isinstance(block, ProblemOperator)
    return block.problem


def blocks_of(names: Sequence[str], blocks: Blocks) -> dict[str, tuple[str, ...]]:
    """The names of each block's tensors.

    >>> blocks_of(("h.0.a.w", "h.0.b.w", "h.1.a.w"), "h.*.a")
    {'h.0.a': ('h.0.a.w',), 'h.1.a': ('h.1.a.w',)}
    """
    found: dict[str, list[str]] = {}
    if blocks is None:
        for name in names:
            found.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return {block: tuple(members) for block, members in found.items()}
    named = blocks if isinstance(blocks, Mapping) else {}
    paths = [blocks] if isinstance(blocks, str) else list(blocks) if not named else []
    for block, patterns in named.items():
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            members = [name for name in names if _beginning(pattern).match(name)]
            _require(members, pattern, names)
            known = found.setdefault(block, [])
            known.extend(name for name in members if name not in known)
    for path in paths:
        matched = [(m.group(1), n) for n in names if (m := _beginning(path).match(n))]
        _require(matched, path, names)
        for block, name in matched:
            found.setdefault(block, []).append(name)
    return {block: tuple(members) for block, members in found.items()}


def _beginning(path: str) -> re.Pattern[str]:
    """A path whose ``*`` is one step, with all that lies below it."""
    steps = [re.escape(step).replace(r"\*", "[^.]*") for step in path.split(".")]
    return re.compile("(" + r"\.".join(steps) + r")(?:\..*)?$")


def _require(found: Sequence[object], path: str, names: Sequence[str]) -> None:
    if not found:
        shown = ", ".join(names[:6])
        raise ValueError(f"expected parameters below {path!r}, got none; there are {shown}…")
