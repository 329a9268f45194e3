"""Every figure of the three papers that shows data: its name, how it is drawn, what to look for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.attribution.gauss_newton_claims import OUTLIER_MARGIN
from deepspec.krylov import fit_power_law, log_spectral_density, spectral_density
from deepspec.operators import MatrixOperator, Residual
from deepspec.report import layer_figures
from deepspec.report.drawn import Drawn
from deepspec.report.dynamics import error_figure
from deepspec.report.plots import dynamics, hessian_and_its_summands, log_spectrum_of_g, methods
from deepspec.report.plots import trends as trend_plots
from deepspec.report.source import STEPS, Source
from deepspec.zoo.libraries import unknown

SYNTHETIC = 400


@dataclass(frozen=True, kw_only=True)
class PaperFigure:
    """One figure.

    ``look_for`` says what the paper sees in it; ``draw`` draws it from a net of a sweep.
    """

    name: str
    title: str
    look_for: str
    draw: Callable[[Source], Drawn]


def _train_and_test(source: Source) -> Drawn:
    spectra, words, there = [], [], []
    for split in ("train", "test"):
        pairs = source.pairs(split)
        rest = source.density(split, pairs)
        edge = float(rest.ritz_values.max())
        count = int((pairs.values > OUTLIER_MARGIN * edge).sum())
        spectra.append((split, pairs, rest))
        words.append(f"{split}: {count} of the top {len(pairs.values)} above {OUTLIER_MARGIN} edge")
        there.append(count >= len(pairs.values) - 1)
    figure = methods.train_and_test(spectra, source.problems["train"].size)
    return Drawn(figure=figure, there=all(there), found="; ".join(words))


def _summands(source: Source) -> Drawn:
    split = source.attribution
    answers = {c: split.finding(c) for c in ("outliers of Hess", "bulk of Hess")}
    return Drawn(
        figure=hessian_and_its_summands(split),
        there=all(finding.answer == "supported" for finding in answers.values()),
        found="; ".join(
            f"{claim}: {100 * f.removed:.0f} % removed, {f.answer}" for claim, f in answers.items()
        ),
    )


def _knockouts(source: Source) -> Drawn:
    split = source.attribution
    answers = [split.finding(claim) for claim in ("outliers", "mini-bulk", "bulk")]
    return Drawn(
        figure=log_spectrum_of_g(split),
        there=all(finding.answer == "supported" for finding in answers),
        found="; ".join(f"{f.claim}: {100 * f.removed:.0f} % removed, {f.answer}" for f in answers),
    )


def _dynamics_of_g(source: Source) -> Drawn:
    trends = source.trajectory.trends
    by_epoch = [value.mean for value in trends.with_epoch.values()]
    by_size = [value.mean for value in trends.with_samples.values()]
    return Drawn(
        figure=dynamics.log_spectra(source.trajectory.table),
        there=bool(by_size) and min(by_epoch) > 0 and max(by_size) < 0,
        found=(
            f"G_cross moves {min(by_epoch):+.2f} … {max(by_epoch):+.2f} decades from G_within per "
            "decade of epochs"
            + (f", {min(by_size):+.2f} … {max(by_size):+.2f} per decade of n" if by_size else "")
        ),
    )


def _dynamics_of_hessian(source: Source) -> Drawn:
    moments = source.moments
    peak = max(moments, key=lambda moment: moment.trace).epoch
    share = float(moments[-1].spectrum.top[0]) / moments[-1].edge_of_e
    return Drawn(
        figure=dynamics.hessians(source.trajectory.table),
        there=moments[0].epoch < peak < moments[-1].epoch and share < 1,
        found=(
            f"tr G peaks after epoch {peak} and falls {source.decay:.2g}-fold; at the end "
            f"λ₁(G) is {share:.2g} of E's edge"
        ),
    )


def _errors(source: Source) -> Drawn:
    trends = source.trajectory.trends
    pairs = [
        (n, trends.peak[n].mean, trends.kink[n].mean)
        for n in source.trajectory.sizes
        if not math.isnan(trends.kink[n].mean)
    ]
    near = [0.5 <= peak / kink <= 2 for _, peak, kink in pairs]
    return Drawn(
        figure=error_figure(source.trajectory),
        there=bool(near) and all(near),
        found="; ".join(f"{n} per class: peak {p:g}, kink {k:g}" for n, p, k in pairs),
    )


def _maps_by_size(source: Source) -> Drawn:
    sizes = source.trajectory.sizes
    moments = [source.trajectory.of_size(n)[-1] for n in sizes]
    shares = [moment.layout.by_class if moment.layout else math.nan for moment in moments]
    others = [moment.layout.by_cross_class if moment.layout else math.nan for moment in moments]
    return Drawn(
        figure=trend_plots.maps(moments, [f"{n} per class" for n in sizes]),
        there=all(mine > other for mine, other in zip(shares, others, strict=True)),
        found="; ".join(
            f"{n} per class: c {mine:.0%}, c' {other:.0%}"
            for n, mine, other in zip(sizes, shares, others, strict=True)
        ),
    )


def _map_of_one(source: Source) -> Drawn:
    moment = source.moments[-1]
    layout = moment.layout
    there = layout is not None and layout.by_class > layout.by_cross_class
    words = f"c {layout.by_class:.0%}, c' {layout.by_cross_class:.0%}" if layout else "no map"
    figure = trend_plots.maps([moment], [f"{source.per_class} per class"])
    return Drawn(figure=figure, there=there, found=words)


def _maps_by_epoch(source: Source) -> Drawn:
    moments = [moment for moment in source.moments if moment.layout is not None]
    above = [m.layout.by_class > m.layout.by_cross_class for m in moments if m.layout is not None]
    turn = next((m.epoch for m, yes in zip(moments, above, strict=True) if yes), None)
    return Drawn(
        figure=trend_plots.maps(moments, [f"epoch {moment.epoch}" for moment in moments]),
        there=not above[0] and above[-1],
        found="c never explains more than c'" if turn is None else f"c overtakes c' by {turn}",
    )


def _levels(source: Source) -> Drawn:
    moment = source.moments[-1]
    top, count = moment.levels["G1+2"], moment.classes
    share = float(top[:count].sum()) / float(moment.spectrum.top.sum())
    own = float(moment.levels["G0"].sum()) / moment.trace
    return Drawn(
        figure=dynamics.levels(source.trajectory.table),
        there=share > 0.5 and own < 0.1,
        found=f"the top C of G1+2 are {share:.0%} of those of G; G0 has {own:.1%} of tr G",
    )


def _screes(source: Source) -> Drawn:
    worst, gap = math.inf, []
    for moment in source.trajectory.table.values():
        count = moment.classes
        g, both, one = (
            values[:count]
            for values in (moment.spectrum.top, moment.levels["G1+2"], moment.levels["G1"])
        )
        worst = min(worst, float((g - both).min() / g[0]), float((both - one).min() / g[0]))
        gap.append(float(one.sum() / both.sum()))
    return Drawn(
        figure=dynamics.screes(source.trajectory.table),
        there=worst > -1e-3 and min(gap) > 0.8,
        found=(
            f"λ(G) ≥ λ(G1+2) ≥ λ(G1) to {max(0.0, -worst):.0e}; the top C of G1 are "
            f"{min(gap):.0%} … {max(gap):.0%} of those of G1+2"
        ),
    )


def _undeflated(source: Source) -> Drawn:
    density = source.density()
    return Drawn(
        figure=methods.undeflated(density, source.problems["train"].size),
        there=None,
        found=f"λ from {density.range[0]:.3g} to {density.range[1]:.3g}",
    )


def _deflation(source: Source) -> Drawn:
    pairs = source.pairs()
    whole, rest = source.density(), source.density(pairs=pairs)
    finer = whole.sigma * (whole.range[1] - whole.range[0])
    finer /= rest.sigma * (rest.range[1] - rest.range[0])
    figure = methods.deflation(whole, pairs, rest, source.problems["train"].size)
    return Drawn(figure=figure, there=finer > 1, found=f"the bulk is {finer:.1f} times finer drawn")


def _tails(source: Source) -> Drawn:
    residual = Residual(source.problems["test"])
    density = log_spectral_density(residual, STEPS, 2, seed=0, per="unit")
    largest = float(density.ritz_values.abs().max())
    law = fit_power_law(density, (1e-2 * largest, 0.5 * largest))
    return Drawn(
        figure=methods.tails(density, law),
        there=law.r_squared > 0.95,
        found=f"exponent {law.exponent:.2f} ± {law.exponent_error:.2f}, R² {law.r_squared:.3f}",
    )


def _synthetic(_: Source) -> Drawn:
    generator = torch.Generator().manual_seed(0)
    n = SYNTHETIC
    noise = torch.randn(n, n, generator=generator, dtype=torch.float64)
    spiked = torch.diag(torch.tensor([5.0, 4.0, 3.0] + [0.0] * (n - 3), dtype=torch.float64))
    uniform = torch.rand(n // 2, n, generator=generator, dtype=torch.float64)
    pareto = 1 / (1 - uniform)
    cases, worst = [], 0.0
    for title, matrix, logarithmic in (
        ("three spikes and a bulk", spiked + noise @ noise.T / n, True),
        ("log of a heavy-tailed one", _logarithm(pareto @ pareto.T / n), False),
    ):
        exact = torch.linalg.eigvalsh(matrix)
        density = spectral_density(MatrixOperator(matrix), STEPS, 10, seed=0)
        below = torch.searchsorted(exact, density.grid, right=True).double() / len(exact)
        worst = max(worst, float((density.cumulative() - below).abs().max()))
        cases.append((title, exact, density, logarithmic))
    return Drawn(
        figure=methods.verification(cases),
        there=worst < 0.05,
        found=f"distribution functions within {worst:.3f}",
    )


def _logarithm(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-12).log()) @ vectors.T


_HESSIAN = "a bulk, and C outliers to its right, on train and on test data"
_SUMMANDS = "outliers of Hess vanish without G, its bulk without E"
_KNOCKOUTS = "each knockout takes its own feature: class means the outliers, and so on"
_PARTING = "G_cross and G_within part with epochs, and draw closer with n"
_PLAIN = "outliers as bumps, wider than they are, beside a blurred bulk"
_TAIL = "a straight line over a decade or more, the same on both sides of zero"
_FINER = "deflation gives outliers exactly, and the bulk at a finer resolution"
_CHECK = "the estimate follows the exact histogram, outliers included"

FIGURES: dict[str, PaperFigure] = {
    name: PaperFigure(name=name, title=title, look_for=look_for, draw=draw)
    for names, title, look_for, draw in (
        ("arxiv2018-2 jmlr2020-3", "Spectrum of Hess", _HESSIAN, _train_and_test),
        ("arxiv2018-3 jmlr2020-4", "Hess and its summands", _SUMMANDS, _summands),
        ("arxiv2018-1 jmlr2020-5", "Attribution by knockouts", _KNOCKOUTS, _knockouts),
        ("arxiv2018-7 jmlr2020-6", "Dynamics of G", _PARTING, _dynamics_of_g),
        (
            "arxiv2018-6",
            "Dynamics of Hess, G and E",
            "G grows to a peak, then falls until E is all that matters",
            _dynamics_of_hessian,
        ),
        (
            "arxiv2018-10",
            "Training errors",
            "the error stops falling steeply where tr G has its peak",
            _errors,
        ),
        (
            "jmlr2020-7",
            "Features knocked out, by layer",
            "in deep layers the C outliers go with the class means, and little else",
            layer_figures.features_knocked_out,
        ),
        (
            "jmlr2020-8",
            "Screes of features, by layer",
            "C outliers, those of the class means, grow out of the bulk with depth",
            layer_figures.features_screes,
        ),
        (
            "jmlr2020-9",
            "Errors knocked out, by layer",
            "the C outliers go with the class means",
            layer_figures.errors_knocked_out,
        ),
        (
            "jmlr2020-10",
            "Screes of errors, by layer",
            "outliers at the eigenvalues of class and cross-class means",
            layer_figures.errors_screes,
        ),
        (
            "jmlr2020-11",
            "KFAC and CFAC beside G, by depth",
            "outliers of CFAC align with those of G, those of KFAC do not",
            layer_figures.approximations_by_depth,
        ),
        (
            "jmlr2020-12",
            "Spectra of KFAC, CFAC and G, by layer",
            "CFAC follows G closer than KFAC, the more so in deep layers",
            layer_figures.approximations,
        ),
        (
            "jmlr2020-13",
            "Weights knocked out, by layer",
            "C outliers of W go with its class part, where training has come to rest",
            layer_figures.weights_knocked_out,
        ),
        ("arxiv2018-9 jmlr2020-14", "Hess without deflation", _PLAIN, _undeflated),
        ("arxiv2018-8 jmlr2020-15", "Synthetic data", _CHECK, _synthetic),
        ("arxiv2018-4 jmlr2020-16", "Tails of E", _TAIL, _tails),
        ("arxiv2018-5 jmlr2020-17", "Benefits of deflation", _FINER, _deflation),
        (
            "icml2019-3",
            "Maps of mean gradients, by n",
            "after training they cluster by class c, c = c' apart in the middle",
            _maps_by_size,
        ),
        (
            "icml2019-4",
            "Map of mean gradients, one net",
            "they cluster by class c",
            _map_of_one,
        ),
        (
            "icml2019-5",
            "Maps of mean gradients, by epoch",
            "they cluster by c' first, by c later",
            _maps_by_epoch,
        ),
        (
            "icml2019-6",
            "G and its levels",
            "outliers of G are at those of G1+2; G0 is negligible",
            _levels,
        ),
        (
            "icml2019-7",
            "Scree plots",
            "λ(G) ≥ λ(G1+2) ≥ λ(G1), the last two close",
            _screes,
        ),
    )
    for name in names.split()
}


def paper_figure(name: str) -> PaperFigure:
    """A figure by name.

    Raises
    ------
    ValueError
        If there is none; the nearest is named.

    >>> paper_figure("jmlr2020-6").title
    'Dynamics of G'
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    return FIGURES[name]
