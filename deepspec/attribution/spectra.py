"""A spectrum as marks: where its eigenvalues are and how many each mark stands for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.seeding import stream
from deepspec.krylov import Tridiagonal, lanczos
from deepspec.operators import ColumnSpace, Compression, Projector, SymmetricOperator
from deepspec.storage.display import Drawable, Result, Table, Tabular

FORMED_UP_TO = 1000


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Spectrum(Result, Tabular, Drawable):
    """The whole spectrum of one operator.

    Attributes
    ----------
    operator
        What it is the spectrum of.
    method
        "exact" or "Lanczos": what the marks are.
    top
        The largest eigenvalues, descending, each certain; none where none was looked for.
    nodes, counts
        Marks for all eigenvalues but the ``top``: Σ counts = dimension − len(top). Exact ones
        count 1 each; those of Lanczos are Gauss nodes, each for a whole neighbourhood.
    matvecs
        What the marks cost.
    causes, top_causes
        For each part of G the share it has in every node, and in every top eigenvalue, where that
        was asked for: ‖P_part s‖² for the eigenvector (or Ritz vector) s of S, so
        v_iᵀ G_part v_i/λ_i in parameter space. The shares of the four parts add up to 1.
    reach
        Where by Lanczos the rest of the spectrum ends: the largest node with its residual.
    """

    operator: str
    method: str
    top: Float[Tensor, " k"]
    nodes: Float[Tensor, " m"]
    counts: Float[Tensor, " m"]
    matvecs: int
    causes: dict[str, Float[Tensor, " m"]] = field(default_factory=dict)
    top_causes: dict[str, Float[Tensor, " k"]] = field(default_factory=dict)
    reach: float = -math.inf

    @property
    def end(self) -> float:
        """Where all but the top eigenvalues end, above; −∞ where there are none."""
        return max(self.reach, float(self.nodes.max()) if len(self.nodes) else -math.inf)

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

    def _words(self) -> list[str]:
        words = [f"{self.operator}, {self.method}", f"{len(self.top)} largest certain"]
        if len(self.top):
            words[1] += f" from {float(self.top[0]):.4g} down to {float(self.top[-1]):.4g}"
        words.append(f"{float(self.counts.sum()):,.0f} more at {len(self.nodes):,} places")
        return [*words, f"{self.matvecs:,} matvecs"]

    def _table(self) -> Table:
        return {
            "eigenvalue": [*self.top.tolist(), *self.nodes.tolist()],
            "count": [*[1.0] * len(self.top), *self.counts.tolist()],
        }


def exact_spectrum_of(
    name: str,
    eigenvalues: Float[Tensor, " m"],
    top: int,
    shares: Mapping[str, Float[Tensor, " m"]] | None = None,
) -> Spectrum:
    """Marks from a list of all eigenvalues; ``shares`` of the parts in each of them, descending.

    >>> exact_spectrum_of("A", torch.tensor([1.0, 3.0]), 1).trace
    4.0
    """
    values = eigenvalues.double().cpu().sort(descending=True).values
    rest = values[top:]
    return Spectrum(
        operator=name,
        method="exact",
        top=values[:top],
        nodes=rest,
        counts=torch.ones_like(rest),
        matvecs=0,
        causes={part: share[top:].cpu() for part, share in (shares or {}).items()},
        top_causes={part: share[:top].cpu() for part, share in (shares or {}).items()},
    )


def dense_spectrum(name: str, operator: SymmetricOperator, top: int) -> Spectrum:
    """All of a small operator's spectrum, by forming it.

    One probe's weights are a fair sample of a large spectrum, and of a small one they are not;
    forming a larger one would cost more than all the rest of an attribution.
    """
    matrix = operator.to_dense().double()
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    rounding = operator.size * operator.epsilon * float(values.abs().max())
    values[values.abs() <= rounding] = 0.0  # of neither sign
    return replace(exact_spectrum_of(name, values, top), matvecs=operator.size)


def lanczos_spectrum(
    name: str,
    operator: SymmetricOperator,
    top: Float[Tensor, " k"],
    vectors: Float[Tensor, "m k"],
    *,
    steps: int,
    probes: int,
    seed: int,
    reorthogonalize: bool,
    parts: Mapping[str, Projector] | None = None,
) -> Spectrum:
    """Top eigenvalues from their eigenpairs, the rest by Lanczos in what these leave over.

    The start vectors are uniform directions off the eigenvectors and off whatever a compression
    removed (Papyan 2020, Algorithm 3 after Appendix C.8's deflation).
    """
    rest = operator.project_out(ColumnSpace(vectors)) if vectors.shape[1] else operator
    dimension = rest.size - (rest.num_removed if isinstance(rest, Compression) else 0)
    nodes, counts = [torch.zeros(0, dtype=torch.float64)], [torch.zeros(0, dtype=torch.float64)]
    matvecs, reach = 0, -math.inf
    causes = {part: [torch.zeros(0, dtype=torch.float64)] for part in parts or {}}
    for probe in range(probes if dimension > 0 else 0):
        generator = stream(seed, "density", probe)
        start = torch.randn(rest.size, generator=generator, dtype=torch.float32)
        start = start.to(rest.device, rest.dtype)
        if isinstance(rest, Compression):
            start = rest.restrict(start)
        if not float(start.norm()):
            continue
        run = lanczos(
            rest, min(steps, dimension), start, "full" if reorthogonalize else "none", seed=seed
        )
        matvecs += run.matvecs
        nodes.append(run.ritz_values)
        reach = max(reach, float((run.ritz_values + run.residual_bounds).max()))
        counts.append(run.ritz_weights * dimension / probes)
        if parts and run.basis is not None:
            turn = torch.linalg.eigh(_full(run)).eigenvectors.to(run.basis)
            for part, share in shares_of_parts(parts, run.basis @ turn).items():
                causes[part].append(share)
    return Spectrum(
        operator=name,
        method="Lanczos",
        top=top.double().cpu(),
        nodes=torch.cat(nodes),
        counts=torch.cat(counts),
        matvecs=matvecs,
        causes={part: torch.cat(shares) for part, shares in causes.items()},
        top_causes=shares_of_parts(parts or {}, vectors),
        reach=reach,
    )


def _full(run: Tridiagonal) -> Float[Tensor, "m m"]:
    beside = torch.diag(run.off_diagonal, 1)
    return torch.diag(run.diagonal) + beside + beside.T


def shares_of_parts(
    parts: Mapping[str, Projector], vectors: Float[Tensor, "m k"]
) -> dict[str, Float[Tensor, " k"]]:
    """‖P s‖² of each column s, for each P."""
    return {
        name: (part @ vectors).double().square().sum(dim=0).cpu() for name, part in parts.items()
    }
