"""The command line: ``ccm spectrum | law | bayes | simulate | sweep``, each with ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import typer

from ccm.bayes import bayes_spectrum
from ccm.cli.errors import OneLineErrors
from ccm.cli.exploring import explore
from ccm.cli.options import (
    AlphaOption,
    Classes,
    Decay,
    Dim,
    FigureFile,
    Json,
    PerClass,
    Seed,
    Snr,
    print_json,
    show,
)
from ccm.cli.sweeping import sweep
from ccm.finite_sample import GROUPS, finite_sample_law
from ccm.fisher import empirical_fim
from ccm.model import CanonicalClassificationModel
from ccm.simulation import simulate as simulate_once
from ccm.simulation import spectrum_group_means
from ccm.spectrum import Spectrum
from ccm.symmetric import symmetric_probabilities, symmetric_spectrum

app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="What the class structure of a classifier's Fisher information must look like.",
)

LARGEST_FIGURE = 10_000  # D·C of a FIM whose eigenvalues are computed for a figure


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """What the class structure of a classifier's Fisher information must look like."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def show_spectrum(
    spectrum: Spectrum, title: str, facts: Mapping[str, Any], notes: list[str], as_json: bool
) -> None:
    """A spectrum as a table, or all of it as JSON."""
    if as_json:
        print_json({**facts, "trace": spectrum.trace, "levels": spectrum.records()})
        return
    rows = [[lv.label, f"{lv.value:.9g}", str(lv.multiplicity)] for lv in spectrum.levels]
    total = f"trace {spectrum.trace:.9g}, {spectrum.size} eigenvalues"
    show(title, ["group", "eigenvalue", "multiplicity"], rows, [total, *notes])


@app.command()
def spectrum(
    dim: Dim, classes: Classes, snr: Snr, alpha: AlphaOption, as_json: Json = False
) -> None:
    """Level 1: Theorem 8.1, the population FIM with symmetric probabilities.

    Example: ccm spectrum --dim 50 --classes 10 --snr 3 --alpha 0.1
    """
    result = symmetric_spectrum(CanonicalClassificationModel(dim, classes, snr), alpha)
    facts = {"dim": dim, "num_classes": classes, "snr": snr, "alpha": alpha}
    title = f"Theorem 8.1: CCM({dim}, {classes}), t = {snr:g}, α = {alpha:g}"
    show_spectrum(result, title, facts, [], as_json)


@app.command()
def law(
    dim: Dim,
    classes: Classes,
    snr: Snr,
    alpha: AlphaOption,
    per_class: PerClass,
    figure: FigureFile = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Level 2: the finite-sample law, with what is detached from the bulk and from which SNR.

    With --figure, one simulated FIM of this size is drawn under the law.

    Example: ccm law --dim 200 --classes 4 --snr 3 --alpha 0.3 --per-class 100 --figure law.png
    """
    model = CanonicalClassificationModel(dim, classes, snr)
    result = finite_sample_law(model, alpha, per_class)
    level_1 = symmetric_spectrum(model, alpha)
    groups = {}
    for label in GROUPS[: 1 if classes == 2 else 2]:
        critical = result.critical_snr(label)
        groups[label] = {
            "location": result.location(label),
            "critical_snr": critical if np.isfinite(critical) else None,
            "level_1": level_1.level(label).value,
            "multiplicity": level_1.level(label).multiplicity,
        }
    if figure is not None:
        from ccm.plots.levels import plot_bulk, save_figure

        if model.size > LARGEST_FIGURE:
            raise ValueError(
                f"the figure needs all eigenvalues of a simulated FIM, at most D·C = "
                f"{LARGEST_FIGURE}, got {model.size}; lower --dim and --per-class alike, which "
                "leaves the law as it is"
            )
        X, y = model.sample(per_class, seed)
        fim = empirical_fim(X, symmetric_probabilities(classes, alpha)[y])
        save_figure(plot_bulk(result, np.linalg.eigvalsh(fim)), figure)
    edges = [[float(low), float(high)] for low, high in result.edges]
    if as_json:
        facts: dict[str, Any] = {"dim": dim, "num_classes": classes, "snr": snr}
        facts["alpha"] = result.alpha
        facts |= {"per_class": per_class, "delta": result.delta, "bulk_edges": edges}
        facts |= {"atom_at_zero": result.atom_at_zero, "groups": groups}
        print_json(facts)
        return
    rows = [
        [
            label,
            "in the bulk" if group["location"] is None else f"{group['location']:.6g}",
            f"{group['level_1']:.6g}",
            "never" if group["critical_snr"] is None else f"{group['critical_snr']:.4g}",
            str(group["multiplicity"]),
        ]
        for label, group in groups.items()
    ]
    bulk = ", ".join(f"[{low:.6g}, {high:.6g}]" for low, high in edges) or "none"
    show(
        f"Finite-sample law: CCM({dim}, {classes}), t = {snr:g}, α = {alpha:g}, N = {per_class}",
        ["group", "location", "level 1", "detached from t =", "multiplicity"],
        rows,
        [f"bulk: {bulk}; mass at zero {result.atom_at_zero:.4g}; D/(NC) = {result.delta:.4g}"],
    )


@app.command()
def bayes(
    dim: Dim,
    classes: Classes,
    snr: Snr,
    figure: FigureFile = None,
    as_json: Json = False,
) -> None:
    """Level 3: the exact population spectrum at the Bayes classifier, up to SNR 64.

    With --figure, levels 1 and 3 are drawn side by side from SNR 0 to the one given.

    Example: ccm bayes --dim 50 --classes 10 --snr 3
    """
    model = CanonicalClassificationModel(dim, classes, snr)
    result = bayes_spectrum(model)
    alpha, error = model.bayes_alpha(), model.bayes_error()
    if figure is not None:
        from ccm.plots.levels import plot_symmetric_against_bayes, save_figure

        save_figure(plot_symmetric_against_bayes(model, np.linspace(0, snr, 40)), figure)
    facts = {"dim": dim, "num_classes": classes, "snr": snr, "alpha": alpha, "error": error}
    title = f"Bayes classifier: CCM({dim}, {classes}), t = {snr:g}"
    notes = [f"α {alpha:.9g}, misclassification {error:.9g}"]
    show_spectrum(result, title, facts, notes, as_json)


@app.command()
def simulate(
    dim: Dim,
    classes: Classes,
    snr: Snr,
    per_class: PerClass,
    alpha: Annotated[
        float | None, typer.Option("--alpha", "-a", help="α; by default the fitted classifier's.")
    ] = None,
    weight_decay: Decay = 1e-4,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Level 4: sample, fit a classifier, and show its FIM's groups beside levels 1 and 3.

    Level 3 takes an SNR up to 64.

    Example: ccm simulate --dim 50 --classes 5 --snr 2 --per-class 1000
    """
    model = CanonicalClassificationModel(dim, classes, snr)
    level_3 = spectrum_group_means(bayes_spectrum(model), model, classes - 1)
    result = simulate_once(model, per_class, seed, alpha, weight_decay)
    if as_json:
        facts: dict[str, Any] = {"dim": dim, "num_classes": classes, "snr": snr}
        facts |= {"per_class": per_class, "weight_decay": weight_decay, "seed": seed}
        print_json({**facts, **asdict(result)})
        return
    level_1 = spectrum_group_means(symmetric_spectrum(model, result.alpha), model, classes)
    order = (level_1, result.symmetric, level_3, result.bayes, result.fitted)
    rows = []
    for label in ("outliers", "mini-bulk", "bulk"):
        values = [getattr(groups, label.replace("-", "_")) for groups in order]
        rows.append([label, *("-" if np.isnan(value) else f"{value:.6g}" for value in values)])
    show(
        f"CCM({dim}, {classes}), t = {snr:g}, N = {per_class}, α = {result.alpha:.4g}",
        ["group", "level 1", "simulated", "level 3", "at Bayes", "fitted"],
        rows,
        [
            f"fitted: α {result.fitted_alpha:.4g}, train error {result.train_error:.4g}, "
            f"test error {result.test_error:.4g}; Bayes: α {model.bayes_alpha():.4g}, "
            f"error {model.bayes_error():.4g}"
        ],
    )


app.command()(sweep)
app.command()(explore)
