"""How well Kronecker approximations agree with G^l, layer by layer and as block-diagonals of G."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from deepspec.class_structure.array import gradients
from deepspec.layerwise.blocks import (
    APPROXIMATIONS,
    Block,
    Curvature,
    approximate_block,
    exact_block,
    in_whole,
    merged,
)
from deepspec.layerwise.layer import Layer
from deepspec.layerwise.layers import Layers
from deepspec.storage.display import Drawable, Result, Table, Tabular

BLOCKS = "block_diagonal"
MEASURES = ("log_ratio_top", "log_ratio_next", "relative_error", "overlap", "trace_ratio")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Agreement(Result):
    """How near a matrix K is to the true one, A.

    Attributes
    ----------
    eigenvalues
        The largest of K, C + C² of them or as many as there are; descending.
    log_ratio_top
        The mean of |log(λ_i(K)/λ_i(A))| over the top C: 0 where they agree, 0.7 for a factor of
        two. NaN where A has none.
    log_ratio_next
        The same over the next C².
    relative_error
        ‖K − A‖/‖A‖ (Frobenius).
    overlap
        ‖UᵀV‖²/C of the two top-C eigenspaces: 1 if they are the same, 0 if orthogonal.
    trace_ratio
        tr K / tr A.
    """

    eigenvalues: Float[Tensor, " q"]
    log_ratio_top: float
    log_ratio_next: float
    relative_error: float
    overlap: float
    trace_ratio: float

    def _words(self) -> list[str]:
        return [f"{name} {getattr(self, name):.3g}" for name in MEASURES]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BlockAgreement(Result, Tabular):
    """All approximations of one matrix: a layer's G^l, or G.

    Attributes
    ----------
    name
        The layer's name; "G" for the whole.
    num_classes
        C.
    parameters
        The number of rows.
    eigenvalues
        The largest of the true matrix, C + C² of them or as many as differ from zero.
    by_approximation
        "kfac", "cfac", "ekfac", "kfoc"; of the whole also "block_diagonal".
    """

    name: str
    num_classes: int
    parameters: int
    eigenvalues: Float[Tensor, " q"]
    by_approximation: dict[str, Agreement]

    def __getitem__(self, kind: str) -> Agreement:
        return self.by_approximation[kind]

    def top_ratio(self, kind: str) -> float:
        """λ₁(K)/λ₁(A)."""
        return float(self[kind].eigenvalues[0] / self.eigenvalues[0])

    def _words(self) -> list[str]:
        errors = [f"{kind} {k.relative_error:.3g}" for kind, k in self.by_approximation.items()]
        return [
            self.name,
            f"{self.parameters:,} parameters",
            f"relative errors: {', '.join(errors)}",
        ]

    def _table(self) -> Table:
        found = self.by_approximation
        columns = {name: [getattr(k, name) for k in found.values()] for name in MEASURES}
        return {"approximation": list(found), **columns}


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CurvatureAgreement(Result, Tabular, Drawable):
    """Kronecker approximations beside exact curvature: of each layer, and of the whole net.

    Attributes
    ----------
    layers
        Layers whose weight is a matrix, in the order of use.
    whole
        Block-diagonals against G: of the exact G^l ("block_diagonal"), and with each of these
        replaced by its approximation.
    """

    layers: tuple[BlockAgreement, ...]
    whole: BlockAgreement

    def by_depth(self, measure: str) -> dict[str, list[float]]:
        """One of an :class:`Agreement`'s measures for every layer, by approximation.

        Raises
        ------
        ValueError
            If there is no such measure.
        """
        if measure not in MEASURES:
            raise ValueError(f"expected one of {', '.join(MEASURES)}; got {measure!r}")
        kinds = self.layers[0].by_approximation
        return {kind: [getattr(layer[kind], measure) for layer in self.layers] for kind in kinds}

    def _words(self) -> list[str]:
        depth = self.by_depth("log_ratio_top")
        words = [f"{len(self.layers)} layers"]
        words += [f"|log ratio| of the top C, {kind}: {_list(v)}" for kind, v in depth.items()]
        exact = self.whole[BLOCKS]
        return [*words, f"G, exact blocks: relative error {exact.relative_error:.2f}"]

    def _table(self) -> Table:
        blocks = (*self.layers, self.whole)
        rows = [(block.name, kind) for block in blocks for kind in block.by_approximation]
        every = [k for block in blocks for k in block.by_approximation.values()]
        columns = {name: [getattr(k, name) for k in every] for name in MEASURES}
        return {
            "block": [name for name, _ in rows],
            "approximation": [kind for _, kind in rows],
            **columns,
        }


def _list(values: Sequence[float]) -> str:
    shown = [f"{value:.2f}" for value in values]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:4], "…", *shown[-3:]])


def curvature_agreement(
    layers: Layers, kinds: Sequence[str] = tuple(APPROXIMATIONS)
) -> CurvatureAgreement:
    """How well Kronecker approximations agree with exact curvature, layer by layer and as a whole.

    KFAC, CFAC, EKFAC and KFOC against G^l, and their block-diagonals against G. Everything is
    exact: norms and inner products come from Gram matrices of gradients and from the factors, and
    no matrix on parameters is formed. ‖G − blkdiag(K^l)‖² is ‖G‖² − 2 Σ⟨G^l, K^l⟩ + Σ‖K^l‖². In
    the block-diagonals normalisations and convolutions in groups, which have no Kronecker
    approximation, keep their exact block; parameters that are in no layer have none.

    Parameters
    ----------
    layers
        A net's layers. With a bias in θ the approximations are on (out, in + 1).
    kinds
        Which approximations.

    Raises
    ------
    MemoryError
        If a Gram matrix of nC rows does not fit.
    ValueError
        If an approximation is unknown, or no layer has a weight matrix.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> data = torch.eye(2).double(), torch.tensor([0, 1])
    >>> from deepspec.problem import Problem
    >>> found = curvature_agreement(Layers(Problem(net.double(), data)), ["cfac"])
    >>> [layer.name for layer in found.layers], round(found.layers[1]["cfac"].overlap, 6)
    (['0', '2'], 1.0)
    """
    unknown = [kind for kind in kinds if kind not in APPROXIMATIONS]
    if unknown or not kinds:
        raise ValueError(
            f"expected kinds among {', '.join(APPROXIMATIONS)}; got "
            f"{', '.join(map(repr, unknown)) or 'none'}"
        )
    C = layers.problem.num_classes
    count = C + C * C
    found: list[BlockAgreement] = []
    blocks: dict[str, list[Block]] = {kind: [] for kind in (BLOCKS, *kinds)}
    for layer in layers:
        exact = exact_block(layer.gradients, count, C)
        own = dict.fromkeys(kinds, exact)
        if layer.has_matrix:
            own = _approximate(layer, kinds, count)
            found.append(_beside(layer, exact, own))
        for kind, block in (own | {BLOCKS: exact}).items():
            blocks[kind].append(block)
    if not found:
        raise ValueError(
            "expected a layer whose weight in θ is one matrix, but there are only "
            f"{', '.join(f'{layer.name} ({layer.kind})' for layer in layers)}"
        )
    return CurvatureAgreement(layers=tuple(found), whole=_whole(layers, blocks, count))


def block_agreement(layer: Layer, kinds: Sequence[str] = tuple(APPROXIMATIONS)) -> BlockAgreement:
    """Kronecker approximations of one layer's curvature beside its exact G^l (Papyan 2020, §7.10).

    Raises
    ------
    MemoryError
        If a Gram matrix of nC rows does not fit.
    ValueError
        If the layer's weight is no matrix.
    """
    layer.require_kronecker()
    C = layer.problem.num_classes
    exact = exact_block(layer.gradients, C + C * C, C)
    return _beside(layer, exact, _approximate(layer, kinds, C + C * C))


def _approximate(layer: Layer, kinds: Sequence[str], count: int) -> dict[str, Block]:
    C, bias = layer.problem.num_classes, layer.bias_in_theta
    return {
        kind: approximate_block(layer, APPROXIMATIONS[kind](layer, bias), count, C)
        for kind in kinds
    }


def _beside(layer: Layer, exact: Block, own: dict[str, Block]) -> BlockAgreement:
    C = layer.problem.num_classes
    return BlockAgreement(
        name=layer.name,
        num_classes=C,
        parameters=layer.own.size,
        eigenvalues=exact.values,
        by_approximation={k: _compared(exact, [block], [exact], C) for k, block in own.items()},
    )


def layer_agreement(layer: Layer, K: Curvature) -> Agreement:
    """How near one operator on a layer's weight is to its G^l.

    Parameters
    ----------
    layer
        The layer.
    K
        On the weight (out, in), row by row, or on (out, in + 1) with the bias last. Where θ has a
        bias and K has none, K counts as zero there.

    Raises
    ------
    MemoryError
        If a Gram matrix of nC rows does not fit.
    ValueError
        If K is on matrices of another shape.
    """
    widths = [layer.width_in, layer.width_in + 1][: 1 + layer.bias_in_theta]
    shapes = [(layer.width_out, width) for width in widths]
    if (K.rows, K.columns) not in shapes:
        raise ValueError(
            f"expected an operator on matrices {' or '.join(map(str, shapes))} of {layer.name}, "
            f"got {K!r}"
        )
    C = layer.problem.num_classes
    exact = exact_block(layer.gradients, C + C * C, C)
    return _compared(exact, [approximate_block(layer, K, C + C * C, C)], [exact], C)


def _whole(layers: Layers, blocks: dict[str, list[Block]], count: int) -> BlockAgreement:
    C = layers.problem.num_classes
    exact = exact_block(gradients(layers.problem, layers.convention), count, C)
    parts = [
        Block(
            values=exact.values,
            vectors=in_whole(layer, exact.vectors),
            squared_norm=exact.squared_norm,
            inner=exact.inner,
            trace=exact.trace,
        )
        for layer in layers
    ]
    return BlockAgreement(
        name="G",
        num_classes=C,
        parameters=layers.problem.size,
        eigenvalues=exact.values,
        by_approximation={
            kind: _compared(exact, several, parts, C) for kind, several in blocks.items()
        },
    )


def _compared(exact: Block, blocks: Sequence[Block], parts: Sequence[Block], C: int) -> Agreement:
    """A block-diagonal K beside A; ``parts`` hold the rows of A's vectors that are each block's."""
    values, owners = merged(blocks, len(exact.values))
    inner = sum(block.inner for block in blocks)
    squared = exact.squared_norm - 2 * inner + sum(block.squared_norm for block in blocks)
    shared = 0.0
    for place, (block, part) in enumerate(zip(blocks, parts, strict=True)):
        top = block.vectors[:, : int((owners[:C] == place).sum())]
        shared += float((part.vectors.double().T @ top.double()).square().sum())
    ratios = (values / exact.values[: len(values)].cpu()).clamp_min(0.0).log().abs()
    return Agreement(
        eigenvalues=values,
        log_ratio_top=_mean(ratios[:C]),
        log_ratio_next=_mean(ratios[C:]),
        relative_error=math.sqrt(max(squared, 0.0) / exact.squared_norm),
        overlap=shared / max(1, min(C, exact.vectors.shape[1])),
        trace_ratio=sum(block.trace for block in blocks) / exact.trace,
    )


def _mean(values: Float[Tensor, " q"]) -> float:
    return float(values.mean()) if len(values) else math.nan
