"""A map of the mean gradients from their Gram matrix alone ([000] Figs. 3–5)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from deepspec.attribution import MeansMap
from deepspec.plots.style import MARKERS, PALETTE, new_figure, styled

MOST_CLASSES = 10


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


def embed(table: Float[np.ndarray, "r r"], seed: int = 0) -> Float[np.ndarray, "r 2"]:
    """t-SNE of a table of distances (scikit-learn, seeded)."""
    perplexity = float(min(12, max(2, (len(table) - 1) // 3)))
    model = TSNE(
        metric="precomputed",
        init="random",
        perplexity=perplexity,
        random_state=seed,
        learning_rate=50.0,
        method="exact",
        max_iter=600,
    )
    return np.asarray(model.fit_transform(table))


@styled
def means_map(means: MeansMap, seed: int = 0) -> Figure:
    """The same map twice: coloured by class c, and by cross-class c'."""
    names, table = distances(means)
    points = embed(table, seed)
    figure, axes = new_figure(1, 2, 3.9)
    classes = sorted({c for c, _ in names})
    for panel, which in zip(axes[0], (0, 1), strict=True):
        for (c, other), (x, y) in zip(names, points, strict=True):
            if other == -1:
                continue
            index = classes.index((c, other)[which])
            own = c == other
            panel.plot(
                x,
                y,
                MARKERS[index % len(MARKERS)],
                color="white" if own else PALETTE[index % len(PALETTE)],
                mec=PALETTE[index % len(PALETTE)],
                ms=5.5,
                mew=1.0 if own else 0.3,
            )
        for (c, other), (x, y) in zip(names, points, strict=True):
            if other == -1:
                panel.text(
                    x,
                    y,
                    str(c),
                    fontsize=11,
                    fontweight="bold",
                    ha="center",
                    va="center",
                    bbox={"boxstyle": "circle,pad=0.25", "fc": "white", "ec": "black", "lw": 0.8},
                )
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
    handles.append(Line2D([], [], ls="", marker="o", color="white", mec="black", label="c = c'"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), handletextpad=0.1
    )
    return figure
