"""Features and errors of a layer as arrays with class structure."""

from __future__ import annotations

from dataclasses import replace

import torch

from deepspec.class_structure.array import ClassArray
from deepspec.class_structure.cells import Convention, weigh_cells, weigh_gradients
from deepspec.class_structure.rows import TensorRows
from deepspec.layerwise.records import Records, Shared
from deepspec.memory import free_memory
from deepspec.problem import Problem

# A vector while its array is made: its batch, all batches in one, and that in float64.
COPIES = 4


def feature_array(records: Records, place: int, shared: Shared, name: str) -> ClassArray:
    """H = Σ h hᵀ/n, the second moment of a layer's inputs (Papyan 2020, §7.4).

    Raises
    ------
    MemoryError
        If its vectors do not fit; says how many samples would.
    """
    problem = records.problem
    width, _, positions = records.widths[place]
    per_sample = width * (1 if shared == "reduce" else positions)
    _require_room(problem, per_sample, f"the features of layer {name}", shared, positions)
    batches = [(b.feature_rows(shared), b.samples(shared)) for b in records.batches(place)]
    found = [part for part, _ in batches]
    vectors = torch.cat([part.vectors for part in found])
    log_weights = torch.cat([part.weights for part in found]).log()
    labels = torch.cat([part.labels for part in found])
    rows = TensorRows(vectors, (0.5 * log_weights).exp(), "H")
    cells = weigh_cells(
        log_weights[:, None], labels, problem.num_classes, vectors.dtype, cross=False
    )
    sample = torch.cat([samples for _, samples in batches])
    return ClassArray.of(rows, replace(cells, sample=None if shared == "reduce" else sample))


def error_array(
    records: Records, place: int, shared: Shared, name: str, convention: Convention
) -> ClassArray:
    """Δ = Σ w_{i,c'} δ_{i,c'} δ_{i,c'}ᵀ of the backpropagated errors (Papyan 2020, §7.7).

    Raises
    ------
    MemoryError
        If its vectors do not fit; says how many samples would.
    """
    problem = records.problem
    _, width, positions = records.widths[place]
    per_sample = problem.num_classes * width * (1 if shared == "reduce" else positions)
    _require_room(problem, per_sample, f"the errors of layer {name}", shared, positions)
    batches = [(b.error_rows(shared), b.samples(shared)) for b in records.batches(place)]
    found = [part for part, _ in batches]
    vectors = torch.cat([part.vectors for part in found])
    sample = torch.cat([samples for _, samples in batches])
    labels = torch.cat([part.labels for part in found])
    # From logarithms: a probability that underflows still has its share in the means.
    log_probabilities = problem.log_probabilities[sample]
    every = log_probabilities.new_full((len(sample),), 1 / problem.num_samples).log()
    cells = weigh_gradients(log_probabilities, labels, vectors.dtype, convention, every)
    root = (0.5 * (log_probabilities + every[:, None])).exp()
    rows = TensorRows(vectors.flatten(0, 1), root.flatten(), "Δ")
    return ClassArray.of(rows, replace(cells, sample=None if shared == "reduce" else sample))


def _require_room(
    problem: Problem, per_sample: int, what: str, shared: Shared, positions: int
) -> None:
    each = COPIES * per_sample * problem.parameters.element_size()
    needed, free = each * problem.num_samples, free_memory(problem.device)
    if needed > free:
        reduce = shared == "expand" and positions > 1
        raise MemoryError(
            f"expected {needed / 1e9:.3g} GB for {what} of {problem.num_samples:,} samples, "
            f"{free / 1e9:.3g} GB are free; {free // each:,} samples would fit: take a subset"
            + (', or one vector a sample with shared="reduce"' if reduce else "")
        )
