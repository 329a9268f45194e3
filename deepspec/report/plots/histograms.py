"""From a spectrum's marks to a curve: how many eigenvalues there are per step of an axis."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deepspec.attribution import Spectrum


def log_histogram(
    spectrum: Spectrum, low: float, high: float, bins: int, part: str | None = None
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Centres (in λ) and eigenvalues per bin of log λ, all but the top ones.

    Exact eigenvalues are counted; a Lanczos node's count is spread evenly, on the log axis, up to
    half-way to its neighbours. With ``part``, each counts by that part's share in it.
    """
    nodes, counts = spectrum.nodes.numpy(), spectrum.counts.numpy()
    if part is not None:
        counts = counts * spectrum.causes[part].numpy()
    edges = np.linspace(np.log10(low), np.log10(high), bins + 1)
    centres = 10 ** ((edges[1:] + edges[:-1]) / 2)
    positive = nodes > low / 10
    nodes, counts = np.log10(nodes[positive]), counts[positive]
    if spectrum.method == "exact":
        found, _ = np.histogram(nodes, edges, weights=counts)
        return centres, found
    return centres, spread(nodes, counts, edges)


def linear_histogram(
    spectrum: Spectrum, low: float, high: float, bins: int
) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """The same for bins of λ itself."""
    edges = np.linspace(low, high, bins + 1)
    nodes, counts = spectrum.nodes.numpy(), spectrum.counts.numpy()
    centres = (edges[1:] + edges[:-1]) / 2
    if spectrum.method == "exact":
        return centres, np.histogram(nodes, edges, weights=counts)[0]
    return centres, spread(nodes, counts, edges)


def spread(
    nodes: Float[np.ndarray, " m"],
    counts: Float[np.ndarray, " m"],
    edges: Float[np.ndarray, " e"],
) -> Float[np.ndarray, " b"]:
    """Counts per bin, each node's count even between the midpoints to its neighbours.

    The outermost reach no further out than themselves: a PSD matrix has nothing below zero.

    >>> spread(np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.array([0.0, 2.0, 4.0]))
    array([2., 2.])
    """
    if not len(nodes):
        return np.zeros(len(edges) - 1)
    order = np.argsort(nodes)
    nodes, counts = nodes[order], counts[order]
    if len(nodes) == 1:
        return np.histogram(nodes, edges, weights=counts)[0]
    middle = (nodes[1:] + nodes[:-1]) / 2
    left, right = np.append(nodes[0], middle), np.append(middle, nodes[-1])
    least = 1e-9 * (edges[-1] - edges[0])
    cumulative = (
        np.clip((edges[:, None] - left) / np.maximum(right - left, least), 0.0, 1.0) @ counts
    )
    return np.diff(cumulative)
