"""The Python lines that reproduce a view."""

from __future__ import annotations

from ccm.explore.draws import WEIGHT_DECAY
from ccm.explore.state import ViewState


def python_lines(state: ViewState) -> str:
    """Lines to copy, which compute what the view shows with the library alone.

    Examples
    --------
    >>> names = {}
    >>> exec(python_lines(ViewState(dim=6, num_classes=3, snr=2.0, alpha=0.5)), names)
    >>> names["level_1"].level("outliers").value
    0.8125
    """
    lines = [
        "import numpy as np",
        "import ccm",
        "",
        f"model = ccm.CanonicalClassificationModel(dim={state.dim}, "
        f"num_classes={state.num_classes}, snr={state.snr!r})",
        f"X, y = model.sample(per_class={state.per_class}, seed={state.seed})",
    ]
    if state.alpha == "bayes":
        lines.append("alpha = model.bayes_alpha()")
    elif state.alpha == "measured":
        lines += [
            f"fit = ccm.fit_logistic(X, y, weight_decay={WEIGHT_DECAY!r}, "
            f"num_classes={state.num_classes})",
            "fitted = 1 - fit.probabilities(X)[np.arange(y.size), y].mean()",
            f"alpha = min(fitted, 1 - 1 / {state.num_classes})",
        ]
    else:
        lines.append(f"alpha = {state.alpha!r}")
    lines += [
        "",
        "level_1 = ccm.symmetric_spectrum(model, alpha)",
        f"law = ccm.finite_sample_law(model, alpha, per_class={state.per_class})",
        "level_3 = ccm.bayes_spectrum(model)",
        'outliers = law.location("outliers")  # None: in the bulk',
        "",
        "# One simulated spectrum, D·C eigenvalues:",
        f"probabilities = ccm.symmetric_probabilities({state.num_classes}, alpha)[y]",
        "# eigenvalues = np.linalg.eigvalsh(ccm.empirical_fim(X, probabilities))",
        "",
        "# This view in a notebook:",
        f"# ccm.explorer(dim={state.dim}, num_classes={state.num_classes}, snr={state.snr!r}, "
        f"per_class={state.per_class}, alpha={state.alpha!r}, seed={state.seed})",
    ]
    return "\n".join(lines) + "\n"
