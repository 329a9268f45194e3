"""A spectrum as marks: where its eigenvalues are and how many each mark stands for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.krylov import lanczos
from deepspec.operators import ColumnSpace, Compression, MatrixOperator, Projector
from deepspec.operators.base import SymmetricOperator


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The whole spectrum of one operator.

    Attributes
    ----------
    operator
        What it is the spectrum of.
    method
        "exact" or "Lanczos": what the marks are.
    top
        The largest eigenvalues, descending, each certain.
    nodes, counts
        Marks for all eigenvalues but the ``top``: Σ counts = dimension − len(top). Exact ones
        count 1 each; those of Lanczos are Gauss nodes, each for a whole neighbourhood.
    products
        What the marks cost.
    """

    operator: str
    method: str
    top: Float[Tensor, " k"]
    nodes: Float[Tensor, " m"]
    counts: Float[Tensor, " m"]
    products: int

    @property
    def tail_energy(self) -> float:
        """Σ λ² over all but the top eigenvalues."""
        return float((self.counts * self.nodes.square()).sum())

    @property
    def tail_trace(self) -> float:
        """Σ λ over all but the top eigenvalues."""
        return float((self.counts * self.nodes).sum())

    @property
    def trace(self) -> float:
        """Σ λ."""
        return float(self.top.sum()) + self.tail_trace


class SumOfOrthogonal(Projector):
    """P + Q for projectors with orthogonal ranges."""

    def __init__(self, first: Projector, second: Projector) -> None:
        self.first, self.second = first, second

    @property
    def rank(self) -> int:
        return self.first.rank + self.second.rank

    @property
    def size(self) -> int:
        return self.first.size

    @property
    def dtype(self) -> torch.dtype:
        return self.first.dtype

    @property
    def device(self) -> torch.device:
        return self.first.device

    def _product(self, columns: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        return self.first @ columns + self.second @ columns


def exact_spectrum_of(name: str, eigenvalues: Float[Tensor, " m"], top: int) -> Spectrum:
    """Marks from a list of all eigenvalues.

    >>> exact_spectrum_of("A", torch.tensor([1.0, 3.0]), 1).trace
    4.0
    """
    values = eigenvalues.double().cpu().sort(descending=True).values
    rest = values[top:]
    return Spectrum(name, "exact", values[:top], rest, torch.ones_like(rest), 0)


def estimated_spectrum(
    name: str,
    operator: SymmetricOperator,
    top: Float[Tensor, " k"],
    vectors: Float[Tensor, "m k"],
    *,
    steps: int,
    probes: int,
    seed: int,
    reorthogonalize: bool,
) -> Spectrum:
    """Top eigenvalues from their eigenpairs, the rest by Lanczos in what these leave over.

    The start vectors are uniform directions off the eigenvectors and off whatever a compression
    removed ([002] Algorithm 3 after Appendix C.8's deflation).
    """
    space: Projector = ColumnSpace(vectors)
    inner = operator
    if isinstance(operator, Compression):
        space = SumOfOrthogonal(operator.projector, space)
        inner = operator.operator
    rest = Compression(inner, space)
    dimension = rest.size - rest.removed
    nodes, counts = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.float64)]
    products = 0
    for probe in range(probes if dimension > 0 else 0):
        generator = torch.Generator().manual_seed(7919 * (seed + 1) + probe)
        start = torch.randn(rest.size, generator=generator, dtype=torch.float32)
        start = rest.keep(start.to(rest.device, rest.dtype))
        if not float(start.norm()):
            continue
        run = lanczos(
            rest, min(steps, dimension), start, "full" if reorthogonalize else "none", seed=seed
        )
        products += len(run.diagonal)
        nodes.append(run.ritz_values)
        counts.append(run.ritz_weights * dimension / probes)
    return Spectrum(
        name, "Lanczos", top.double().cpu(), torch.cat(nodes), torch.cat(counts), products
    )


def spectrum_of(
    name: str,
    operator: SymmetricOperator,
    top: Float[Tensor, " k"],
    vectors: Float[Tensor, "m k"],
    *,
    steps: int,
    probes: int,
    seed: int,
    reorthogonalize: bool = True,
) -> Spectrum:
    """Exact where the matrix is at hand, else estimated."""
    matrix = at_hand(operator)
    if matrix is not None:
        return exact_spectrum_of(name, torch.linalg.eigvalsh(matrix.double()), len(top))
    return estimated_spectrum(
        name,
        operator,
        top,
        vectors,
        steps=steps,
        probes=probes,
        seed=seed,
        reorthogonalize=reorthogonalize,
    )


def at_hand(operator: SymmetricOperator) -> Float[Tensor, "m m"] | None:
    """The matrix, where the operator is a formed one or compresses a formed one."""
    if isinstance(operator, MatrixOperator):
        return operator.matrix
    if isinstance(operator, Compression) and isinstance(operator.operator, MatrixOperator):
        matrix = operator.operator.matrix
        left = operator.keep(matrix)
        return operator.keep(left.T.contiguous())
    return None
