"""A map of the mean gradients from their Gram matrix alone (Papyan 2019, Figs. 3–5)."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from deepspec.attribution import MeansMap
from deepspec.report.plots.style import GREY, MARKERS, PALETTE, new_figure, styled
from deepspec.seeds import Seed, whole_seed

MOST_CLASSES = 10
FEWEST_POINTS = 20


def distances(means: MeansMap) -> tuple[list[tuple[int, int]], Float[np.ndarray, "r r"]]:
    """Distances between the cells' means and the class means, in parameter space.

    ‖a − b‖² = ⟨a,a⟩ + ⟨b,b⟩ − 2⟨a,b⟩; a class mean is Σ_{c'≠c} π_{c,c'} g_{c,c'}, and is named
    (c, −1).
    """
    cells = [(c, other) for c, other in means.cells]
    classes = sorted({c for c, _ in cells})
    if len(classes) > MOST_CLASSES:
        chosen = np.random.default_rng(0).permutation(classes)[:MOST_CLASSES]
        classes = sorted(int(c) for c in chosen)
    places = [i for i, (c, o) in enumerate(cells) if c in classes and o in classes]
    rows = [
        torch.zeros(len(cells), dtype=torch.float64).index_fill_(0, torch.tensor(i), 1.0)
        for i in places
    ]
    names = [cells[i] for i in places]
    for c in classes:
        weights = torch.tensor(
            [
                float(means.weights[i]) if a == c and a != b else 0.0
                for i, (a, b) in enumerate(cells)
            ],
            dtype=torch.float64,
        )
        if float(weights.sum()) > 0:
            rows.append(weights / weights.sum())
            names.append((c, -1))
    turn = torch.stack(rows)
    gram = turn @ means.gram.double() @ turn.T
    square = gram.diagonal()[:, None] + gram.diagonal() - 2 * gram
    return names, square.clamp_min(0.0).sqrt().fill_diagonal_(0.0).numpy()


def embed(table: Float[np.ndarray, "r r"], seed: Seed = 0) -> Float[np.ndarray, "r 2"]:
    """t-SNE of a table of distances (scikit-learn, seeded)."""
    perplexity = float(min(12, max(2, (len(table) - 1) // 3)))
    model = TSNE(
        metric="precomputed",
        init="random",
        perplexity=perplexity,
        random_state=whole_seed(seed),
        learning_rate=50.0,
        method="exact",
        max_iter=600,
    )
    return np.asarray(model.fit_transform(table))


@styled
def means_map(means: MeansMap, seed: Seed = 0) -> Figure:
    """The same map twice: coloured by class c, with the class means, and by cross-class c'."""
    names, table = distances(means)
    points = embed(table, seed)
    figure, axes = new_figure(1, 2, 3.9)
    classes = sorted({c for c, _ in names})
    for panel, which in zip(axes[0], (0, 1), strict=True):
        for (c, other), (x, y) in zip(names, points, strict=True):
            if other == -1 and which == 1:
                continue  # a class mean has no cross-class
            index = classes.index((c, other)[which])
            marker, colour = MARKERS[index % len(MARKERS)], PALETTE[index % len(PALETTE)]
            face, edge, width = colour, "white", 0.3
            if c == other:
                face, edge, width = "white", colour, 1.0
            elif other == -1:
                face, edge, width = colour, "black", 1.2
            size = 9.0 if other == -1 else 5.5
            panel.plot(x, y, marker, color=face, mec=edge, mew=width, ms=size)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlabel("t-SNE, first coordinate")
    axes[0][0].set_ylabel("t-SNE, second coordinate")
    axes[0][0].set_title("marked by class c")
    axes[0][1].set_title("marked by cross-class c'")
    handles = [
        Line2D([], [], ls="", marker=MARKERS[i % 10], color=PALETTE[i % 10], label=str(c))
        for i, c in enumerate(classes)
    ]
    for face, size, label in (("white", 5.5, "c = c'"), (GREY, 9.0, "mean of class c")):
        handles.append(
            Line2D([], [], ls="", marker="o", color=face, mec="black", ms=size, label=label)
        )
    columns = math.ceil(len(handles) / 2)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handletextpad=0.1)
    return figure
