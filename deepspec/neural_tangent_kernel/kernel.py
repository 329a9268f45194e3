"""The tangent kernel Θ = J Jᵀ of a problem, layer by layer, in blocks that fit the memory."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.arguments import check_not_negative, shown
from deepspec.classifier.logit_function import LogitFunction
from deepspec.layers.recording import Layer, record
from deepspec.layers.uses import layers_with_formula
from deepspec.neural_tangent_kernel.accumulation import mirror, sample_blocks
from deepspec.neural_tangent_kernel.jacobian import add_jacobian
from deepspec.neural_tangent_kernel.layer_contributions import (
    LayerSize,
    Share,
    layer_size,
    shares_of,
)
from deepspec.problem import Problem
from deepspec.storage.display import Result

# A block is this large, or a quarter of Θ if that is more, or what the memory leaves.
BLOCK_BYTES = 2**29


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TangentKernel(Result):
    """The inner products of the gradients of all logits of all samples, Θ = J Jᵀ.

    Attributes
    ----------
    matrix
        (nC, nC) in the problem's precision; logit c of sample i is row i C + c.
    fingerprint
        Which problem it is of.
    by_formula
        The tensors of θ whose share came from a layer formula; the others' came from rows of J.
    """

    matrix: Float[Tensor, "nC nC"]
    fingerprint: dict[str, str | int | float]
    by_formula: tuple[str, ...] = field(default=())

    def _words(self) -> list[str]:
        trace, rows = float(self.matrix.diagonal().sum()), len(self.matrix)
        formula = f"{len(self.by_formula)} tensors by layer formulas"
        return [f"{rows:,} × {rows:,}", f"trace {trace:.4g}", formula]

    @cached_property
    def factor(self) -> Float[Tensor, "nC r"]:
        """F with F Fᵀ = Θ and r = rank Θ, from its eigenvectors."""
        return positive_factor(self.matrix)


def positive_factor(matrix: Float[Tensor, "m m"]) -> Float[Tensor, "m r"]:
    """F with F Fᵀ = M, for a positive semidefinite M; eigenvalues of rounding are left out."""
    values, vectors = torch.linalg.eigh(matrix)
    level = len(values) * torch.finfo(values.dtype).eps * values.amax().clamp(min=0.0)
    keep = values > level
    return vectors[:, keep] * values[keep].sqrt()


# What somebody still holds is not computed again; nothing is kept alive here.
_KERNELS: WeakKeyDictionary[Problem, ReferenceType[TangentKernel]] = WeakKeyDictionary()


def tangent_kernel(problem: Problem, memory: int | None = None) -> TangentKernel:
    """The neural tangent kernel (NTK) of a classifier, of all its logits on all its samples.

    Θ = J Jᵀ (docs/theory.md §1, "Exact spectra").
    Linear layers, 2-d convolutions, batch and layer normalisation and embeddings add their share
    by a formula from inputs and errors; parameters that are shared, tied, used outside their
    module or belong to anything else, by rows of the Jacobian. The result is compared with one
    J (Jᵀ r); should they differ, everything is taken from the Jacobian, with a warning.

    Parameters
    ----------
    problem
        What to differentiate.
    memory
        Bytes that may be used; by default what is free on the device. A kernel of the same problem
        that somebody still holds is returned as it is.

    Raises
    ------
    MemoryError
        If Θ and one block do not fit; says how many samples would.

    >>> model = torch.nn.Linear(2, 2, bias=False).double()
    >>> data = (torch.tensor([[1.0, 0.0], [3.0, 4.0]]).double(), torch.tensor([0, 1]))
    >>> tangent_kernel(Problem(model, data)).matrix
    tensor([[ 1.,  0.,  3.,  0.],
            [ 0.,  1.,  0.,  3.],
            [ 3.,  0., 25.,  0.],
            [ 0.,  3.,  0., 25.]], dtype=torch.float64)
    """
    if not isinstance(problem, Problem):
        raise TypeError(
            f"expected a deepspec.Problem, got {shown(problem)}; make one with "
            "deepspec.Problem(model, data)"
        )
    if memory is not None:
        check_not_negative(memory, "memory in bytes")
    available = problem.engine.free_memory() if memory is None else memory
    held = _KERNELS.get(problem, lambda: None)()
    if held is not None and memory is None:
        return held
    require_memory(problem, 1.25, available)
    if held is None:
        held = _computed(problem, available)
        _KERNELS[problem] = ref(held)
    return held


def require_memory(problem: Problem, matrices: float, available: int) -> None:
    """Room for so many matrices of the size of Θ.

    Raises
    ------
    MemoryError
        If there is none; says how many samples would fit.
    """
    number = problem.parameters.element_size()
    size = problem.num_rows * problem.num_classes
    needed = int(matrices * size**2 * number)
    if needed > available:
        fitting = int((available / (matrices * number)) ** 0.5) // problem.num_classes
        raise MemoryError(
            f"expected {needed / 1e9:.3g} GB for the tangent kernel of {problem.num_rows} "
            f"rows × {problem.num_classes} classes, {available / 1e9:.3g} GB are free; "
            f"{fitting} rows would fit: take a subset, or use the density estimates"
        )


def _computed(problem: Problem, available: int) -> TangentKernel:
    size = problem.num_rows * problem.num_classes
    theta = torch.zeros(size, size, dtype=problem.dtype, device=problem.device)
    theta_bytes = theta.numel() * theta.element_size()
    block = min(max(BLOCK_BYTES, theta_bytes // 4), available - theta_bytes)
    function, group = problem.engine.example(), problem.group
    blocks = sample_blocks(problem.num_rows, problem.num_classes)
    owners = [group.owner(place) for place in range(len(blocks))]
    mine = [block for block, owner in zip(blocks, owners, strict=True) if owner == group.rank]

    def complete() -> None:
        """Rows that other processes computed, and what is above the diagonal."""
        rows = [slice(b.start * problem.num_classes, b.stop * problem.num_classes) for b in blocks]
        group.fill(theta, list(zip(rows, owners, strict=True)), "putting the kernel together")
        mirror(theta)

    layers = layers_with_formula(function)
    by_formula = {name for layer in layers for name in layer.names}
    if layers:
        _add_layers(theta, problem, layers, function, block, mine)
    rest = tuple(name for name in problem.space.names if name not in by_formula)
    add_jacobian(theta, problem, rest, block, mine)
    complete()
    if by_formula and not _agrees(theta, problem):
        warnings.warn(
            f"the layer formulas do not describe {type(function.model).__name__} (is a layer's "
            "first dimension not the sample, or its output changed by a hook?); the tangent "
            "kernel is taken from the Jacobian instead, which is slower",
            RuntimeWarning,
            stacklevel=4,
        )
        theta.zero_()
        by_formula = set()
        add_jacobian(theta, problem, problem.space.names, block, mine)
        complete()
    ordered = tuple(name for name in problem.space.names if name in by_formula)
    return TangentKernel(matrix=theta, fingerprint=problem.fingerprint(), by_formula=ordered)


def _agrees(theta: Float[Tensor, "nC nC"], problem: Problem) -> bool:
    """Whether Θ r is J (Jᵀ r), for one r with nothing special about it."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(len(theta), generator=generator, dtype=torch.float64)
    shape = (problem.num_rows, problem.num_classes, 1)
    r = probe.to(problem.device)
    pulled = problem.engine.vjp(r.view(shape))
    expected = problem.engine.jvp(pulled.contiguous()).flatten()
    found = (theta @ r.to(theta.dtype)).double()
    tolerance = 10 * torch.finfo(problem.precision).eps ** 0.5
    return float((found - expected).norm()) <= tolerance * float(expected.norm())


def _add_layers(
    theta: Float[Tensor, "nC nC"],
    problem: Problem,
    layers: list[Layer],
    function: LogitFunction,
    block: int,
    mine: Sequence[slice],
) -> None:
    """The shares of all layers, as many layers at each pass over the data as fit a block."""
    numbers = block // theta.element_size() // 2
    records = record(function.head(1), layers)
    sizes = [
        layer_size(layer.formula, observed, deltas, problem.num_samples)
        for layer, (observed, deltas) in zip(layers, records, strict=True)
    ]
    del records
    # Where each process brings its own data, the first one's example counts.
    told = problem.group.from_first(lambda: [asdict(size) for size in sizes])
    sizes = [LayerSize(**size) for size in told]
    shares = [
        share
        for layer, size in zip(layers, sizes, strict=True)
        for share in shares_of(layer, size, numbers)
    ]
    while shares:
        together = _first_that_fit(shares, numbers)
        shares = shares[len(together) :]
        in_batch = sum(share.size.errors for share in together)
        chosen = [share.layer for share in together]

        def recorded(_: slice, part: LogitFunction, chosen: list[Layer] = chosen) -> list[Tensor]:
            return [tensor for pair in record(part, chosen) for tensor in pair]

        at_once = max(1, numbers // max(in_batch, 1))
        for rows, taken in problem.engine.everywhere(recorded, at_once):
            for share, observed, deltas in zip(together, taken[::2], taken[1::2], strict=True):
                share.take(rows, observed, deltas)
        while together:
            together.pop(0).add_to(theta, numbers, mine)


def _first_that_fit(shares: list[Share], numbers: int) -> list[Share]:
    """Shares for one pass: of different layers, and together no larger than a block."""
    chosen = shares[:1]
    for share in shares[1:]:
        used = sum(other.numbers for other in chosen) + share.numbers
        if used > numbers or any(other.layer is share.layer for other in chosen):
            break
        chosen.append(share)
    return chosen
